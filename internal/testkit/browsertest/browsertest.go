// Package browsertest opens pages in a headless Chromium, as a person would see
// them, and collects what they must not do.
package browsertest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// named is a browser of somebody's own.
var named = os.Getenv("SURPRISAL_TEST_CHROMIUM")

// Page is a page in a browser of its own.
type Page struct {
	Ctx  context.Context // of the browser's tab, which ends with the test
	Away atomic.Bool     // it may complain: what it asks for fails

	t          testing.TB
	mu         sync.Mutex
	complaints []string
}

// New starts a browser for the test; the test is skipped where there is none. Only
// addresses that begin with one of allowed may be asked for.
func New(t testing.TB, allowed ...string) *Page {
	t.Helper()
	path := ""
	for _, name := range []string{named, "chromium", "chromium-browser", "google-chrome", "headless-shell"} {
		if p, err := exec.LookPath(name); name != "" && err == nil {
			path = p
			break
		}
	}
	if path == "" {
		t.Skip("SKIPPED: needs chromium (or SURPRISAL_TEST_CHROMIUM)")
	}
	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox,
		chromedp.Flag("disable-gpu", true),
		chromedp.WSURLReadTimeout(2*time.Minute)) // it may start slowly
	ctx, cancel := chromedp.NewExecAllocator(t.Context(), opts...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	ctx, cancel = context.WithTimeout(ctx, 10*time.Minute)
	t.Cleanup(cancel)
	p := &Page{t: t, Ctx: ctx}
	p.ok(chromedp.Listen(ctx, func(ev any) { p.heard(ev, allowed) }))
	p.ok(call(ctx, network.Enable, network.EnableParams{}))
	p.ok(call(ctx, log.Enable, cdp.Empty{}))
	p.ok(call(ctx, runtime.Enable, cdp.Empty{}))
	return p
}

func (p *Page) heard(ev any, allowed []string) {
	say := func(s string) {
		if !p.Away.Load() {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.complaints = append(p.complaints, s)
		}
	}
	switch e := ev.(type) {
	case *runtime.EventExceptionThrown:
		say(fmt.Sprintf("exception: %+v", e.ExceptionDetails))
	case *runtime.EventConsoleAPICalled:
		say(fmt.Sprintf("console.%s", e.Type))
	case *log.EventEntryAdded:
		say("log: " + e.Entry.Text + " " + e.Entry.URL)
	case *network.EventRequestWillBeSent:
		for _, begin := range allowed {
			if strings.HasPrefix(e.Request.URL, begin) {
				return
			}
		}
		say("request: " + e.Request.URL)
	}
}

func call[P, R any](ctx context.Context, cmd cdp.Command[P, R], params P) error {
	_, err := chromedp.Call(ctx, cmd, params)
	return err
}

func (p *Page) ok(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

// Look has the page seen on a screen of a width in CSS pixels, in theme light or
// dark.
func (p *Page) Look(width int64, theme string) {
	p.t.Helper()
	p.ok(call(p.Ctx, emulation.SetEmulatedMedia,
		emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme",
			Value: theme}}}))
	p.ok(chromedp.Do(p.Ctx, chromedp.EmulateViewport(width, 900)))
}

// Quiet fails on what the page complained of, and forgets it.
func (p *Page) Quiet() {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.complaints) > 0 {
		p.t.Errorf("the page complains: %q", p.complaints)
	}
	p.complaints = nil
}
