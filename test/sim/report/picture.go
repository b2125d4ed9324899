// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"image/color"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
	"gonum.org/v1/plot/vg/vgsvg"
)

// Colours that people with colour blindness can tell apart: one for each run, and greys
// for plan and bound.
var (
	runColours  = []color.Color{color.RGBA{0x00, 0x5a, 0xb5, 0xff}, color.RGBA{0xdc, 0x6b, 0x00, 0xff}, color.RGBA{0x1b, 0x7f, 0x3b, 0xff}}
	planColour  = color.RGBA{0x55, 0x55, 0x55, 0xff}
	boundColour = color.RGBA{0x99, 0x99, 0x99, 0xff}
	gridColour  = color.RGBA{0xe6, 0xe6, 0xe6, 0xff}
)

const (
	pictureWidth  = 24 * vg.Centimeter
	pictureHeight = 26 * vg.Centimeter
)

// WritePicture writes a picture of one run, or of several in one: $/h with the plan and
// the bound, pods pending, machines and evictions over simulated time. The name's
// ending, .png or .svg, says in which format.
func WritePicture(path string, results ...*Result) error {
	format := strings.TrimPrefix(strings.ToLower(filepath.Ext(path)), ".")
	if format != "png" && format != "svg" {
		return fmt.Errorf("picture %s: write a name that ends in .png or .svg", path)
	}
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("creating the picture: %w", err)
	}
	if err := Draw(f, format, results...); err != nil {
		f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("writing the picture %s: %w", path, err)
	}
	return nil
}

// Draw writes the picture in a format, png or svg.
func Draw(w io.Writer, format string, results ...*Result) error {
	var canvas interface {
		vg.CanvasSizer
		io.WriterTo
	}
	switch format {
	case "png":
		canvas = vgimg.PngCanvas{Canvas: vgimg.NewWith(vgimg.UseWH(pictureWidth, pictureHeight), vgimg.UseDPI(110), vgimg.UseBackgroundColor(color.White))}
	case "svg":
		canvas = vgsvg.New(pictureWidth, pictureHeight)
	default:
		return fmt.Errorf("drawing a picture: the format %q is unknown: use png or svg", format)
	}
	panels, err := panels(results)
	if err != nil {
		return err
	}
	var grid [][]*plot.Plot
	for _, p := range panels {
		grid = append(grid, []*plot.Plot{p})
	}
	dc := draw.New(canvas)
	if format == "svg" {
		dc.SetColor(color.White)
		dc.Fill(dc.Rectangle.Path())
	}
	tiles := draw.Tiles{
		Rows: len(grid), Cols: 1, PadTop: 4 * vg.Millimeter, PadBottom: 3 * vg.Millimeter,
		PadLeft: 3 * vg.Millimeter, PadRight: 8 * vg.Millimeter, PadY: 4 * vg.Millimeter,
	}
	for i, c := range plot.Align(grid, tiles, dc) {
		panels[i].Draw(c[0])
	}
	if _, err := canvas.WriteTo(w); err != nil {
		return fmt.Errorf("writing the picture: %w", err)
	}
	return nil
}

// series is a line of a panel.
type series struct {
	name   string
	colour color.Color
	dashes []vg.Length
	width  vg.Length
	value  func(Sample) float64
}

func panels(results []*Result) ([]*plot.Plot, error) {
	if len(results) == 0 || len(results[0].Samples) == 0 {
		return nil, fmt.Errorf("drawing a picture: there are no samples")
	}
	end := 0.0
	for _, r := range results {
		end = max(end, r.Summary.SimulatedSeconds)
		if n := len(r.Samples); n > 0 {
			end = max(end, r.Samples[n-1].T.Seconds())
		}
	}
	var names []string
	for _, r := range results {
		names = append(names, r.Engine)
	}
	title := fmt.Sprintf("%s  (%s, seed %d)", results[0].Scenario, strings.Join(names, " and "), results[0].Seed)
	var out []*plot.Plot
	for i, panel := range []struct {
		label string
		value func(Sample) float64
	}{
		{"cost, $/h", func(s Sample) float64 { return s.USDPerHour }},
		{"pods pending", func(s Sample) float64 { return float64(s.PodsPending) }},
		{"machines", func(s Sample) float64 { return float64(s.Machines) }},
		{"evictions since start", func(s Sample) float64 { return float64(s.Evictions) }},
	} {
		p := newPanel(panel.label, end)
		if i == 0 {
			p.Title.Text = title
		}
		if i == 3 {
			p.X.Label.Text = "simulated time"
		}
		top := 0.0
		for k, r := range results {
			lines := []series{{name: r.Engine, colour: runColours[k%len(runColours)], width: vg.Points(1.4), value: panel.value}}
			if i == 0 && k == 0 {
				lines = append([]series{
					{"lower bound", boundColour, []vg.Length{vg.Points(1.5), vg.Points(2)}, vg.Points(1.2), func(s Sample) float64 { return s.BoundUSDPerHour }},
					{"one plan of all pods", planColour, []vg.Length{vg.Points(5), vg.Points(2.5)}, vg.Points(1.2), func(s Sample) float64 { return s.PlanUSDPerHour }},
				}, lines...)
			}
			for _, l := range lines {
				most, err := addLine(p, l, r.Samples, end)
				if err != nil {
					return nil, err
				}
				top = max(top, most)
			}
		}
		// Room for the legend above the lines; evictions only grow, so theirs is left.
		p.Legend.Left = i == 3
		if p.Legend.Left {
			p.Legend.XOffs = vg.Points(4)
		}
		p.Y.Min, p.Y.Max = 0, max(1, top*1.25)
		out = append(out, p)
	}
	return out, nil
}

func newPanel(label string, end float64) *plot.Plot {
	p := plot.New()
	p.BackgroundColor = color.White
	p.Title.TextStyle.Font.Size = vg.Points(13)
	p.Title.Padding = vg.Points(6)
	p.Y.Label.Text = label
	p.Y.Tick.Marker = wholeTicks{}
	p.X.Tick.Marker = timeTicks{end}
	p.X.Min, p.X.Max = 0, max(end, 1)
	p.Legend.Top = true
	p.Legend.Padding = vg.Points(3)
	p.Legend.XOffs = -vg.Points(4)
	p.Legend.YOffs = -vg.Points(2)
	for _, a := range []*plot.Axis{&p.X, &p.Y} {
		a.Label.TextStyle.Font.Size = vg.Points(11)
		a.Tick.Label.Font.Size = vg.Points(9)
	}
	p.Legend.TextStyle.Font.Size = vg.Points(9)
	grid := plotter.NewGrid()
	grid.Vertical.Color, grid.Horizontal.Color = gridColour, gridColour
	p.Add(grid)
	return p
}

// addLine draws a figure as steps and returns its largest value. A figure that is 0
// throughout is drawn for runs only: plan and bound of 0 are unknown.
func addLine(p *plot.Plot, l series, samples []Sample, end float64) (float64, error) {
	var points plotter.XYs
	top := 0.0
	for _, s := range samples {
		v := l.value(s)
		top = max(top, v)
		points = append(points, plotter.XY{X: s.T.Seconds(), Y: v})
	}
	if len(points) == 0 || top == 0 && len(l.dashes) > 0 {
		return 0, nil
	}
	points = append(points, plotter.XY{X: end, Y: points[len(points)-1].Y})
	line, err := plotter.NewLine(points)
	if err != nil {
		return 0, fmt.Errorf("drawing %s: %w", l.name, err)
	}
	line.StepStyle = plotter.PostStep
	line.Color, line.Width, line.Dashes = l.colour, l.width, l.dashes
	p.Add(line)
	p.Legend.Add(l.name, line)
	return top, nil
}

// timeTicks puts marks at round times: every 1, 2, 5, 10… seconds, minutes or hours.
type timeTicks struct{ end float64 }

// Ticks returns the marks of an axis.
func (t timeTicks) Ticks(low, high float64) []plot.Tick {
	step := 86400.0 * 100
	for _, s := range []float64{1, 2, 5, 10, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 432000, 864000} {
		if (high-low)/s <= 12 {
			step = s
			break
		}
	}
	var out []plot.Tick
	for v := math.Ceil(low/step) * step; v <= high+step/1000; v += step {
		out = append(out, plot.Tick{Value: v, Label: tickLabel(v, t.end)})
	}
	return out
}

func tickLabel(seconds, end float64) string {
	d := time.Duration(math.Round(seconds)) * time.Second
	switch {
	case d == 0:
		return "0"
	case end > 3*86400:
		return fmt.Sprintf("%.4g d", d.Hours()/24)
	case end > 3*3600:
		return fmt.Sprintf("%.4g h", d.Hours())
	case end > 120:
		return fmt.Sprintf("%.4g min", d.Minutes())
	}
	return fmt.Sprintf("%.0f s", d.Seconds())
}

// wholeTicks puts some five marks at round values.
type wholeTicks struct{}

// Ticks returns the marks of an axis.
func (wholeTicks) Ticks(low, high float64) []plot.Tick {
	if high <= low {
		return nil
	}
	step := math.Pow(10, math.Floor(math.Log10((high-low)/5)))
	for _, k := range []float64{1, 2, 5, 10} {
		if (high-low)/(step*k) <= 6 {
			step *= k
			break
		}
	}
	var out []plot.Tick
	for v := math.Ceil(low/step) * step; v <= high+step/1000; v += step {
		out = append(out, plot.Tick{Value: v, Label: fmt.Sprintf("%.4g", v)})
	}
	return out
}
