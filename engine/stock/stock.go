// Package stock solves the buying half of a placement as what it is, a
// cutting-stock problem: given demands (classes of pods, each a vector and a
// count) and bins (machines that can be bought, each a vector and a price),
// choose bins and fill them so that all demand is met at the least cost, and
// prove how far from the least any answer can be.
//
// It is a pure function: no clock, no randomness, no map whose order shows.
// Effort is counted in work units, never in seconds.
package stock

// Item is demand: Count pods that each take Size.
type Item struct {
	// Size is what one pod takes, in the problem's dimensions.
	Size []int64
	// Count is how many pods there are.
	Count int
	// MaxPerBin caps how many of this item share a bin (hostname spread, self
	// anti-affinity, host ports); 0 means no cap.
	MaxPerBin int
}

// Bin is a kind of machine that can be bought, any number of times.
type Bin struct {
	// Capacity is what fits, daemons' share already taken off.
	Capacity []int64
	// Price in USD per hour, greater than 0.
	Price float64
}

// Problem is the input of Solve. It is not changed.
type Problem struct {
	Items []Item
	Bins  []Bin
	// Allowed[i] is the set of bins that may hold item i, as bits: bin b is
	// allowed when Allowed[i][b/64]&(1<<(b%64)) != 0.
	Allowed [][]uint64
	// Conflict[i] is the set of items that may not share a bin with item i, as
	// bits in the same way, symmetric; nil when there are no conflicts at all.
	Conflict [][]uint64
}

// Pattern is one way to fill one bin, bought Times times.
type Pattern struct {
	Bin int
	// Counts[k] pods of item Items[k].
	Items  []int
	Counts []int
	Times  int
}

// Solution is a complete purchase: every item's count is met exactly.
type Solution struct {
	Patterns []Pattern
	Cost     float64
	// Bound is a proven lower bound on the cost of any solution, the larger of
	// ResourceBound and PatternBound.
	Bound         float64
	ResourceBound float64
	PatternBound  float64
	// Duals[i] is the value of one pod of item i that proved PatternBound, for
	// use as a shadow price by heuristics.
	Duals []float64
	// Work is how many work units were used.
	Work int64
}
