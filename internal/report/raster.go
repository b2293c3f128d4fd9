package report

import (
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"io"
	"math"

	"golang.org/x/image/font"
	"golang.org/x/image/font/gofont/gobold"
	"golang.org/x/image/font/gofont/goregular"
	"golang.org/x/image/font/opentype"
	"golang.org/x/image/math/fixed"
	"golang.org/x/image/vector"
)

// pngScale is pixels a unit.
const pngScale = 2

// png writes the plot in the light theme.
func (p *plot) png(w io.Writer) error {
	img := image.NewRGBA(image.Rect(0, 0, int(math.Ceil(p.w*pngScale)), int(math.Ceil(p.h*pngScale))))
	draw.Draw(img, img.Bounds(), image.NewUniform(hex(light["paper"])), image.Point{}, draw.Src)
	for _, s := range p.shapes {
		if s.text != "" {
			if err := s.drawText(img); err != nil {
				return err
			}
			continue
		}
		s.fill(img)
	}
	return png.Encode(w, img)
}

func (s *shape) fill(img *image.RGBA) {
	z := vector.NewRasterizer(img.Bounds().Dx(), img.Bounds().Dy())
	closed := func(points ...point) {
		for i, q := range points {
			x, y := float32(q.x*pngScale), float32(q.y*pngScale)
			if i == 0 {
				z.MoveTo(x, y)
			} else {
				z.LineTo(x, y)
			}
		}
		z.ClosePath()
	}
	if s.closed {
		closed(s.points...)
	} else {
		for i := 1; i < len(s.points); i++ { // a line is a thin quadrangle for each of its parts
			a, b := s.points[i-1], s.points[i]
			dx, dy := b.x-a.x, b.y-a.y
			n := math.Hypot(dx, dy)
			if n == 0 {
				continue
			}
			ox, oy := -dy/n*s.width/2, dx/n*s.width/2
			closed(point{a.x + ox, a.y + oy}, point{b.x + ox, b.y + oy}, point{b.x - ox, b.y - oy},
				point{a.x - ox, a.y - oy})
		}
	}
	z.Draw(img, img.Bounds(), image.NewUniform(hex(light[s.role])), image.Point{})
}

func (s *shape) drawText(img *image.RGBA) error {
	ttf := goregular.TTF
	if s.bold {
		ttf = gobold.TTF
	}
	f, err := opentype.Parse(ttf)
	if err != nil {
		return fmt.Errorf("font: %w", err)
	}
	face, err := opentype.NewFace(f, &opentype.FaceOptions{Size: s.size * pngScale, DPI: 72})
	if err != nil {
		return fmt.Errorf("font: %w", err)
	}
	defer face.Close()
	d := font.Drawer{Dst: img, Src: image.NewUniform(hex(light[s.role])), Face: face}
	x := s.points[0].x * pngScale
	switch wide := float64(d.MeasureString(s.text)) / 64; s.anchor {
	case "middle":
		x -= wide / 2
	case "end":
		x -= wide
	}
	d.Dot = fixed.Point26_6{X: fixed.Int26_6(x * 64), Y: fixed.Int26_6(s.points[0].y * pngScale * 64)}
	d.DrawString(s.text)
	return nil
}

func hex(s string) color.RGBA {
	c := color.RGBA{A: 255}
	if _, err := fmt.Sscanf(s, "#%02x%02x%02x", &c.R, &c.G, &c.B); err != nil {
		panic(err) // the themes are constants
	}
	return c
}
