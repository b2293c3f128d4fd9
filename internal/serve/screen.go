package serve

import (
	"cmp"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/charmbracelet/lipgloss"
	"github.com/charmbracelet/x/ansi"

	"surprisal/internal/jobs/record"
)

// screen is the terminal that a shot is drawn on; the zero value takes lines of any
// length and number, without colours.
type screen struct {
	width, height int
	colours       bool
	sparks        bool
	keys          string // help on keys, the last line
}

var (
	bold  = lipgloss.NewStyle().Bold(true)
	faint = lipgloss.NewStyle().Faint(true)
	good  = lipgloss.NewStyle().Foreground(lipgloss.Color("2"))
	bad   = lipgloss.NewStyle().Foreground(lipgloss.Color("1")).Bold(true)
	warn  = lipgloss.NewStyle().Foreground(lipgloss.Color("3"))
)

func (c screen) style(s lipgloss.Style, text string) string {
	if !c.colours {
		return text
	}
	return s.Render(text)
}

// room is the number of runs, workers and letters that fit.
func (c screen) room(runs, letters int) (r, w, l int) {
	if c.height <= 0 {
		return math.MaxInt, cellsMost, math.MaxInt
	}
	r = min(runs, max(2, c.height/5))
	l = min(letters, max(1, c.height/6))
	rest := c.height - len(c.keys)/max(1, c.width) - 12 - r
	if l > 0 {
		rest -= l + 2
	}
	return r, max(1, rest), l
}

// lines draws the screen.
func (c screen) lines(s shot) []string {
	at := time.UnixMilli(s.At)
	var out []string
	add := func(l ...string) { out = append(out, l...) }
	add(c.flow(c.style(bold, "surprisal"), c.link(s.Link, at), at.Format(time.TimeOnly))...)
	add(c.summary(&s, at)...)
	r, _, l := c.room(len(s.Runs), len(s.Letters))
	runs := s.Runs[:min(r, len(s.Runs))]
	add("")
	if len(runs) == 0 {
		add(c.style(faint, "no runs"))
	} else {
		add(c.table(runColumns, runRows(runs), func(i int) lipgloss.Style { return runStyle(runs[i].State) })...)
		if more := len(s.Runs) - len(runs) + s.Fleet.MoreRuns; more > 0 {
			add(c.style(faint, fmt.Sprintf("and %s more: dispatcher list", thousands(int64(more)))))
		}
	}
	add("")
	if len(s.Workers.List) == 0 {
		add(c.style(faint, "no workers"))
	} else {
		list := s.Workers.List
		add(c.table(workerColumns, c.workerRows(list, at),
			func(i int) lipgloss.Style { return workerStyle(list[i].State) })...)
		if p := s.Workers; p.Found > len(list) {
			add(c.style(faint, fmt.Sprintf("%d to %d of %d", p.Page*p.Size+1, p.Page*p.Size+len(list), p.Found)))
		}
	}
	if len(s.Letters) > 0 {
		letters := s.Letters[:min(l, len(s.Letters))]
		add("")
		add(c.table(letterColumns, letterRows(letters), func(int) lipgloss.Style { return bad })...)
		if more := s.Fleet.Dead - len(letters); more > 0 {
			add(c.style(faint, fmt.Sprintf("and %s more: dispatcher dead list", thousands(int64(more)))))
		}
	}
	if c.height > 0 {
		foot := 0
		if c.keys != "" {
			foot = 1
		}
		out = out[:min(len(out), max(1, c.height-foot))]
		if foot > 0 {
			add(c.style(faint, c.keys))
		}
	}
	if c.width > 0 {
		for i := range out {
			out[i] = ansi.Truncate(out[i], c.width, "…")
		}
	}
	return out
}

// flow puts parts side by side, on as many lines as needed.
func (c screen) flow(parts ...string) []string {
	lines := []string{""}
	for _, p := range parts {
		if p == "" {
			continue
		}
		last := &lines[len(lines)-1]
		switch {
		case *last == "":
			*last = p
		case c.width > 0 && ansi.StringWidth(*last)+3+ansi.StringWidth(p) > c.width:
			lines = append(lines, p)
		default:
			*last += "   " + p
		}
	}
	return lines
}

// link is the line about the connection.
func (c screen) link(l link, at time.Time) string {
	url := printable(l.URL)
	switch {
	case l.OK:
		return url + ", " + c.style(good, "connected")
	case l.Seen.IsZero():
		return url + ", " + c.style(warn, "not connected: "+printable(l.Why))
	}
	return c.style(bad, fmt.Sprintf("NATS UNREACHABLE since %s: showing the state of %s",
		l.Since.Local().Format(time.TimeOnly), l.Seen.Local().Format(time.TimeOnly))) +
		c.style(bad, fmt.Sprintf(", %s ago", short(at.Sub(l.Seen).Seconds()))) + " (" + printable(l.Why) + ")"
}

func (c screen) summary(s *shot, at time.Time) []string {
	f := &s.Fleet
	var states []string
	for _, st := range []string{"busy", "idle", "draining", "stalled", "silent", "gone"} {
		if n := f.States[st]; n > 0 {
			states = append(states, c.style(workerStyle(st), fmt.Sprintf("%d %s", n, st)))
		}
	}
	workers := fmt.Sprintf("workers %d", f.Workers)
	if len(states) > 0 {
		workers += ": " + strings.Join(states, ", ")
	}
	gpus := ""
	if f.GPUs > 0 {
		gpus = fmt.Sprintf("GPUs %d", f.GPUs)
		if f.Use != nil {
			gpus += ", " + percent(*f.Use) + " used"
		}
		if f.Power != nil {
			gpus += fmt.Sprintf(", %s W", thousands(int64(*f.Power)))
		}
	}
	rate := c.style(bold, thousands(int64(f.Rate))+" tokens/s")
	if c.sparks {
		rate += " " + f.Rates.spark(30)
	}
	queue := fmt.Sprintf("queue %s, %s in hand", thousands(int64(min(f.Queue, math.MaxInt64))),
		thousands(int64(f.InHand))) //nolint:gosec // bounded
	if !f.Oldest.IsZero() {
		queue += ", oldest " + short(at.Sub(f.Oldest).Seconds())
	}
	if f.Again > 0 {
		queue += fmt.Sprintf(", %d redelivered", f.Again)
	}
	dead := "dead 0"
	if f.Dead > 0 {
		dead = c.style(bad, "dead "+thousands(int64(f.Dead)))
	}
	left := ""
	if f.Left != nil {
		left = c.style(bold, short(*f.Left)+" left")
	}
	return append(c.flow(workers, gpus, rate),
		c.flow(fmt.Sprintf("runs %d, jobs %s/%s", f.Live, thousands(int64(f.Done)), thousands(int64(f.Jobs))), queue,
			dead,
			left)...)
}

// table draws one; style is of a row.
func (c screen) table(columns []column, rows [][]string, style func(row int) lipgloss.Style) []string {
	lines := tabulate(c.width, columns, rows)
	lines[0] = c.style(faint, lines[0])
	for i := range rows {
		lines[i+1] = c.style(style(i), lines[i+1])
	}
	return lines
}

var runColumns = []column{
	{head: "RUN", most: 40}, {head: "STATE"}, {head: "", drop: 5}, {head: "DONE", right: true}, {head: "JOBS",
		right: true, drop: 3},
	{head: "DEAD", right: true, drop: 1}, {head: "TOKENS/S", right: true, drop: 2}, {head: "LEFT",
		right: true}, {head: "WORKERS", right: true, drop: 4},
	{head: "NOTE", drop: 6, rest: true},
}

func runRows(runs []run) [][]string {
	var rows [][]string
	for i := range runs {
		r := &runs[i]
		note := cmp.Or(r.Error, r.LastError)
		if r.Counting {
			note = "counting"
		}
		left, dead := "", strconv.Itoa(r.Counts[record.StateDead])
		if r.Left != nil && !r.Over {
			left = short(*r.Left)
		}
		rate := ""
		if !r.Over {
			rate = thousands(int64(r.Rate))
		}
		full := int(max(0, min(12, r.Percent*12/100)))
		rows = append(rows, []string{
			printable(r.ID), printable(string(r.State)), "[" + strings.Repeat("#", full) +
				strings.Repeat(".", 12-full) + "]",
			fmt.Sprintf("%.1f %%", r.Percent), fmt.Sprintf("%s/%s", thousands(int64(r.Counts[record.StateDone])),
				thousands(int64(r.Jobs))), dead,
			rate, left, strconv.Itoa(r.Workers), printable(note),
		})
	}
	return rows
}

var workerColumns = []column{
	{head: "WORKER", most: 32}, {head: "STATE"}, {head: "TOKENS/S", right: true}, {head: "", drop: 6}, {head: "GPU",
		right: true, drop: 1},
	{head: "POWER", right: true, drop: 2}, {head: "MEMORY", right: true, drop: 4}, {head: "HEAT", right: true, drop: 5},
	{head: "JOBS", right: true, drop: 3}, {head: "SEEN", right: true, drop: 7}, {head: "HOST", drop: 8,
		most: 24}, {head: "DEVICE", drop: 9, rest: true},
}

func (c screen) workerRows(list []worker, at time.Time) [][]string {
	var rows [][]string
	for i := range list {
		w := &list[i]
		state := w.State
		if n := len(w.Hand); n > 0 && state == "busy" {
			state = fmt.Sprintf("%d in hand", n)
		}
		use, power, memory, heat, name := "", "", "", "", w.Device
		if g := w.GPU; g != nil {
			if name = fmt.Sprintf("%s #%d", g.Name, g.Index); g.Use != nil {
				use = percent(*g.Use)
			}
			if g.Power != nil {
				if power = fmt.Sprintf("%.0f W", *g.Power); g.Limit != nil {
					power = fmt.Sprintf("%.0f/%.0f W", *g.Power, *g.Limit)
				}
			}
			if g.Memory != nil && g.Total != nil {
				memory = fmt.Sprintf("%.0f/%.0f GiB", float64(*g.Memory)/(1<<30), float64(*g.Total)/(1<<30))
			}
			if g.Heat != nil {
				heat = fmt.Sprintf("%.0f °C", *g.Heat)
			}
		}
		trend := ""
		if c.sparks {
			trend = w.Rates.spark(20)
		}
		rows = append(rows, []string{
			printable(w.ID), state, thousands(int64(w.Rate)), trend, use, power, memory, heat, thousands(w.Jobs),
			short(at.Sub(w.Seen).Seconds()), printable(w.Host), printable(cmp.Or(w.Stalled, name)),
		})
	}
	return rows
}

var letterColumns = []column{
	{head: "DIED"}, {head: "RUN", drop: 2, most: 32}, {head: "ROWS", most: 30}, {head: "WORKER", drop: 1,
		most: 24}, {head: "DEAD BECAUSE", rest: true},
}

func letterRows(letters []record.DeadLetter) [][]string {
	var rows [][]string
	for i := range letters {
		d := &letters[i]
		where := d.ID
		if d.Job != nil {
			where = fmt.Sprintf("%s %d-%d", d.Job.Input.Rel, d.Job.First, d.Job.Last)
		}
		rows = append(rows, []string{d.Time.Local().Format(time.TimeOnly), printable(d.Run), printable(where),
			printable(d.Worker), printable(d.Reason)})
	}
	return rows
}

func runStyle(s record.RunState) lipgloss.Style {
	switch s {
	case record.RunFailed, record.RunCancelled:
		return bad
	case record.RunPaused:
		return warn
	case record.RunComplete:
		return faint
	}
	return lipgloss.NewStyle()
}

func workerStyle(state string) lipgloss.Style {
	switch state {
	case "stalled", "silent", "gone":
		return bad
	case "draining":
		return warn
	case "busy":
		return good
	}
	return faint
}

// short is a time in at most two units.
func short(seconds float64) string {
	d := time.Duration(max(0, min(seconds, 1e9)) * float64(time.Second))
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%dd %dh", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
	case d >= time.Hour:
		return fmt.Sprintf("%dh %02dm", d/time.Hour, d%time.Hour/time.Minute)
	case d >= time.Minute:
		return fmt.Sprintf("%dm %02ds", d/time.Minute, d%time.Minute/time.Second)
	}
	return fmt.Sprintf("%ds", d/time.Second)
}

func percent(share float64) string { return fmt.Sprintf("%.0f %%", 100*share) }

// thousands is a number with commas.
func thousands(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
