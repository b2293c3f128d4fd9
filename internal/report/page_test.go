package report

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/chromedp"

	"surprisal/internal/testkit/browsertest"
)

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
	browser := browsertest.New(t, "file://", "data:")
	ctx := browser.Ctx
	page := os.Getenv("SURPRISAL_TEST_REPORT") // a report to look at
	if page == "" {
		page = hostileReport(t)
	}
	for _, width := range []int64{1280, 390} {
		for _, theme := range []string{"light", "dark"} {
			browser.Look(width, theme)
			if err := chromedp.Do(ctx, chromedp.Navigate((&url.URL{Scheme: "file", Path: page}).String())); err != nil {
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
				const s = document.getElementById("view");
				s.selectedIndex = s.options.length - 1;
				s.dispatchEvent(new Event("change"));
				return [...document.querySelectorAll("[data-view]")].filter((v) => !v.hidden).length })()`); got != 1 {
				t.Errorf("%d views are shown", got)
			}
			shot, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
			if err != nil || len(shot) < 10_000 {
				t.Fatalf("a picture of %d bytes: %v", len(shot), err)
			}
			if dir := os.Getenv("SURPRISAL_TEST_SHOTS"); dir != "" {
				if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%d-%s.png", width, theme)), shot,
					0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	browser.Quiet()
}
