package engine

import "math"

// simplex solves covering programs: minimise Σ cost·x with Σ column·x ≥ need
// and x ≥ 0, where columns come from a generator. It is a revised simplex with
// a dense inverse of the basis; rows are few (classes or resources), columns
// many and never all listed.
type simplex struct {
	m    int
	need []float64
	binv []float64 // m×m, row major
	x    []float64 // value of the basic variable of each row
	pi   []float64
	// basis[i] is the column in row i: ≥ 0 a generated one, -1-i the artificial
	// of row i, -1-m-i the surplus of row i.
	basis  []int
	cost   []float64
	cols   [][]entry
	bigM   float64
	pivots int
}

// entry is a non-zero of a sparse column.
type entry struct {
	row int32
	val float64
}

// newSimplex starts with one artificial per row, at a cost that no solution
// wants to pay.
func newSimplex(need []float64, bigM float64) *simplex {
	m := len(need)
	s := &simplex{m: m, need: need, bigM: bigM, binv: make([]float64, m*m), x: make([]float64, m), pi: make([]float64, m), basis: make([]int, m)}
	for i := range need {
		s.binv[i*m+i] = 1
		s.x[i] = need[i]
		s.basis[i] = -1 - i
		s.pi[i] = bigM
	}
	return s
}

func (s *simplex) basicCost(i int) float64 {
	switch b := s.basis[i]; {
	case b >= 0:
		return s.cost[b]
	case b >= -s.m:
		return s.bigM
	}
	return 0
}

// enter brings a column into the basis. It reports false if that would not
// change anything (a degenerate or unbounded direction).
func (s *simplex) enter(cost float64, col []entry) bool {
	id := len(s.cols)
	s.cols = append(s.cols, col)
	s.cost = append(s.cost, cost)
	return s.pivot(id, col)
}

func (s *simplex) pivot(id int, col []entry) bool {
	m := s.m
	d := make([]float64, m)
	for i := 0; i < m; i++ {
		row := s.binv[i*m : i*m+m]
		sum := 0.0
		for _, e := range col {
			sum += row[e.row] * e.val
		}
		d[i] = sum
	}
	leave, best := -1, math.Inf(1)
	for i := 0; i < m; i++ {
		if d[i] > 1e-9 {
			r := s.x[i] / d[i]
			if r < best-1e-12 || (r < best+1e-12 && leave >= 0 && s.basis[i] < s.basis[leave]) {
				best, leave = r, i
			}
		}
	}
	if leave < 0 {
		return false
	}
	s.pivots++
	inv := 1 / d[leave]
	lrow := s.binv[leave*m : leave*m+m]
	for j := range lrow {
		lrow[j] *= inv
	}
	for i := 0; i < m; i++ {
		if i == leave || d[i] == 0 {
			continue
		}
		f := d[i]
		row := s.binv[i*m : i*m+m]
		for j := range row {
			row[j] -= f * lrow[j]
		}
		s.x[i] -= f * best
		if s.x[i] < 0 {
			s.x[i] = 0
		}
	}
	s.x[leave] = best
	s.basis[leave] = id
	s.duals()
	return true
}

// duals computes the price of each row from the basis.
func (s *simplex) duals() {
	m := s.m
	for j := range s.pi {
		s.pi[j] = 0
	}
	for i := 0; i < m; i++ {
		c := s.basicCost(i)
		if c == 0 {
			continue
		}
		row := s.binv[i*m : i*m+m]
		for j := range row {
			s.pi[j] += c * row[j]
		}
	}
}

// surplus brings in the surplus of a row whose price is negative: more than
// needed is delivered there. It reports whether there was one.
func (s *simplex) surplus() bool {
	worst, row := -1e-9, -1
	for i, p := range s.pi {
		if p < worst {
			worst, row = p, i
		}
	}
	if row < 0 {
		return false
	}
	return s.pivot(-1-s.m-row, []entry{{int32(row), -1}})
}
