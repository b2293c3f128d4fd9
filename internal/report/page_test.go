package report

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// browser starts a headless Chromium; the test is skipped where there is none.
func browser(t *testing.T) context.Context {
	t.Helper()
	bin := ""
	for _, name := range []string{os.Getenv("SURPRISAL_TEST_CHROMIUM"), "chromium", "chromium-browser", "google-chrome", "headless-shell"} {
		if p, err := exec.LookPath(name); name != "" && err == nil {
			bin = p
			break
		}
	}
	if bin == "" {
		t.Skip("SKIPPED: needs chromium (or SURPRISAL_TEST_CHROMIUM)")
	}
	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(bin), chromedp.NoSandbox, chromedp.Flag("disable-gpu", true))
	ctx, cancel := chromedp.NewExecAllocator(t.Context(), opts...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	ctx, cancel = context.WithTimeout(ctx, 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// watched collects what a page must not do.
type watched struct {
	mu         sync.Mutex
	complaints []string
}

func watch(t *testing.T, ctx context.Context) *watched {
	t.Helper()
	w := &watched{}
	err := chromedp.Listen(ctx, func(ev any) {
		w.mu.Lock()
		defer w.mu.Unlock()
		switch e := ev.(type) {
		case *runtime.EventExceptionThrown:
			w.complaints = append(w.complaints, fmt.Sprintf("exception: %v", e.ExceptionDetails))
		case *runtime.EventConsoleAPICalled:
			w.complaints = append(w.complaints, fmt.Sprintf("console.%s", e.Type))
		case *log.EventEntryAdded:
			w.complaints = append(w.complaints, "log: "+e.Entry.Text)
		case *network.EventRequestWillBeSent:
			if !strings.HasPrefix(e.Request.URL, "file://") && !strings.HasPrefix(e.Request.URL, "data:") {
				w.complaints = append(w.complaints, "request: "+e.Request.URL)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"network": call(ctx, network.Enable, network.EnableParams{}),
		"log":     call(ctx, log.Enable, cdp.Empty{}),
		"runtime": call(ctx, runtime.Enable, cdp.Empty{}),
	} {
		if err != nil {
			t.Fatal(name, err)
		}
	}
	return w
}

func call[P, R any](ctx context.Context, cmd cdp.Command[P, R], params P) error {
	_, err := chromedp.Call(ctx, cmd, params)
	return err
}

// open shows a page at a width, light or dark.
func open(ctx context.Context, page string, width int64, theme string) error {
	media := emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: theme}}}
	if err := call(ctx, emulation.SetEmulatedMedia, media); err != nil {
		return err
	}
	return chromedp.Do(ctx, chromedp.EmulateViewport(width, 900), chromedp.Navigate((&url.URL{Scheme: "file", Path: page}).String()))
}

// evaluate gives what an expression comes to in the page.
func evaluate[T any](t *testing.T, ctx context.Context, expr string) T {
	t.Helper()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expr))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestPageInABrowser: no error, no request, nothing wider than the screen; slider
// and choice work. With SURPRISAL_TEST_SHOTS the pictures are kept there.
func TestPageInABrowser(t *testing.T) {
	ctx := browser(t)
	page := os.Getenv("SURPRISAL_TEST_REPORT") // a report to look at
	if page == "" {
		page = hostileReport(t)
	}
	w := watch(t, ctx)
	for _, width := range []int64{1280, 390} {
		for _, theme := range []string{"light", "dark"} {
			if err := open(ctx, page, width, theme); err != nil {
				t.Fatal(err)
			}
			if evaluate[bool](t, ctx, `document.documentElement.scrollWidth > innerWidth + 1`) {
				t.Errorf("%d %s: the page is wider than the screen", width, theme)
			}
			if evaluate[bool](t, ctx, `window.pwned === true`) {
				t.Errorf("%d %s: a document's script ran", width, theme)
			}
			if got := evaluate[string](t, ctx, `(() => {
				const p = document.getElementById("p"); p.value = 30; p.dispatchEvent(new Event("input"));
				return document.getElementById("k-where").textContent })()`); got != "perplexity < p30" {
				t.Errorf("the slider says %s", got)
			}
			if got := evaluate[int](t, ctx, `(() => {
				const s = document.getElementById("view"); s.selectedIndex = s.options.length - 1; s.dispatchEvent(new Event("change"));
				return [...document.querySelectorAll("[data-view]")].filter((v) => !v.hidden).length })()`); got != 1 {
				t.Errorf("%d views are shown", got)
			}
			shot, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
			if err != nil || len(shot) < 10_000 {
				t.Fatalf("a picture of %d bytes: %v", len(shot), err)
			}
			if dir := os.Getenv("SURPRISAL_TEST_SHOTS"); dir != "" {
				if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%d-%s.png", width, theme)), shot, 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.complaints) > 0 {
		t.Errorf("the page complains: %v", w.complaints)
	}
}
