package serve

import (
	"strings"
	"unicode"

	"github.com/charmbracelet/x/ansi"
)

// column is a column of a table in a terminal.
type column struct {
	head  string
	right bool
	// drop orders the columns that are dropped where space is short: highest first, 0 never.
	drop int
	// most is the maximum width; 0 is unlimited.
	most int
	// rest: cut to the width that the others leave.
	rest bool
}

// restLeast is the minimum width of a column with rest.
const restLeast = 16

// tabulate lays rows under heads in width columns; 0 is as wide as it needs. The
// heads are the first line.
func tabulate(width int, columns []column, rows [][]string) []string {
	widths := make([]int, len(columns))
	for c, col := range columns {
		some := false
		widths[c] = ansi.StringWidth(col.head)
		for _, r := range rows {
			some = some || r[c] != ""
			widths[c] = max(widths[c], ansi.StringWidth(r[c]))
		}
		if col.most > 0 {
			widths[c] = min(widths[c], max(col.most, len(col.head)))
		}
		if !some && col.drop > 0 {
			widths[c] = -1 // the column is empty
		}
	}
	if width > 0 {
		fit(width, columns, widths)
	}
	line := func(cells func(c int) string) string {
		var b strings.Builder
		for c, w := range widths {
			if w < 0 {
				continue
			}
			if b.Len() > 0 {
				b.WriteString("  ")
			}
			s := ansi.Truncate(cells(c), w, "…")
			pad := strings.Repeat(" ", max(0, w-ansi.StringWidth(s)))
			if columns[c].right {
				b.WriteString(pad + s)
			} else {
				b.WriteString(s + pad)
			}
		}
		return strings.TrimRight(b.String(), " ")
	}
	lines := []string{line(func(c int) string { return columns[c].head })}
	for _, r := range rows {
		lines = append(lines, line(func(c int) string { return r[c] }))
	}
	return lines
}

// fit drops columns, as -1, and narrows those that take the rest.
func fit(width int, columns []column, widths []int) {
	for {
		need, rest, drop := -2, -1, -1
		for c, w := range widths {
			if w < 0 {
				continue
			}
			if need += 2 + w; columns[c].rest {
				rest = c
			}
			if columns[c].drop > 0 && (drop < 0 || columns[c].drop >= columns[drop].drop) {
				drop = c
			}
		}
		over := need - width
		if over > 0 && rest >= 0 && widths[rest]-over >= min(restLeast, widths[rest]) {
			widths[rest] -= over
			return
		}
		if over <= 0 || drop < 0 {
			return
		}
		widths[drop] = -1
	}
}

// printable makes a text from elsewhere safe for one line of a terminal: characters that
// move the cursor or turn the writing direction are replaced.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '\uFFFD'
	}, oneLine(clip(s, 400)))
}

var blocks = []rune("▁▂▃▄▅▆▇█")

// spark draws the last n points of a line.
func (l *line) spark(n int) string {
	if l == nil {
		return ""
	}
	points := l.Points[max(0, len(l.Points)-n):]
	var b strings.Builder
	for i := range len(points) {
		if v := strings.IndexByte(levels, points[i]); v >= 0 {
			b.WriteRune(blocks[v*len(blocks)/len(levels)])
		} else {
			b.WriteByte(' ')
		}
	}
	return b.String()
}
