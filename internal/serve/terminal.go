package serve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	tea "github.com/charmbracelet/bubbletea"
)

// terminal is the model that bubbletea draws: the newest state, and how to show it.
type terminal struct {
	top    *Top
	st     state
	q      query
	screen screen
	paused time.Time // since when nothing is refreshed
}

// refreshed is the message that there is a new state.
type refreshed struct{ st state }

var sorts = []string{"trouble", "name", "fast", "slow"}

// Terminal draws on a terminal until the user quits or ctx ends.
func (t *Top) Terminal(ctx context.Context, in io.Reader, out io.Writer, every time.Duration) error {
	ctx, end := context.WithCancel(ctx)
	m := terminal{top: t, q: query{sort: sorts[0]}, screen: screen{width: 80, height: 24, colours: true, sparks: true}}
	m.st, _ = t.s.current()
	p := tea.NewProgram(m, tea.WithContext(ctx), tea.WithInput(in), tea.WithOutput(out), tea.WithAltScreen(),
		tea.WithoutSignalHandler())
	fed := make(chan struct{})
	go func() { // ends with ctx
		defer close(fed)
		for {
			st, changed := t.s.current()
			p.Send(refreshed{st})
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
			select {
			case <-time.After(max(0, every-keepEvery)):
			case <-ctx.Done():
				return
			}
		}
	}()
	_, err := p.Run()
	stopped := ctx.Err() != nil
	end()
	<-fed
	if stopped && errors.Is(err, tea.ErrProgramKilled) {
		return nil // a signal; the terminal is as it was
	}
	return err
}

// Init does nothing.
func (m terminal) Init() tea.Cmd { return nil }

// Update handles keys, sizes and states.
func (m terminal) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case refreshed:
		if m.paused.IsZero() {
			m.st = msg.st
		}
	case tea.WindowSizeMsg:
		m.screen.width, m.screen.height = msg.Width, msg.Height
	case tea.KeyMsg:
		switch msg.String() {
		case "q", "ctrl+c", "esc":
			return m, tea.Quit
		case "s":
			m.q.sort, m.q.page = sorts[(slices.Index(sorts, m.q.sort)+1)%len(sorts)], 0
		case "p", " ":
			if m.paused.IsZero() {
				m.paused = time.Now()
			} else {
				m.paused = time.Time{}
				m.st, _ = m.top.s.current()
			}
		case "down", "j", "pgdown":
			m.q.page++
		case "up", "k", "pgup":
			m.q.page = max(0, m.q.page-1)
		}
	}
	m.q.page = min(m.q.page, m.shot().Workers.Page) // pages end
	return m, nil
}

func (m terminal) shot() shot {
	q := m.q
	s := m.top.shot(m.st, query{size: 1})
	_, q.size, _ = m.screen.room(len(s.Runs), len(s.Letters))
	s.view = m.top.s.view(m.st, q)
	return s
}

// View draws.
func (m terminal) View() string {
	c := m.screen
	c.keys = fmt.Sprintf("q quit  s sort: %s  p pause  ↑↓ pages", m.q.sort)
	if !m.paused.IsZero() {
		c.keys = fmt.Sprintf("PAUSED at %s  p resume  q quit  s sort: %s", m.paused.Format(time.TimeOnly), m.q.sort)
	}
	return strings.Join(c.lines(m.shot()), "\n")
}
