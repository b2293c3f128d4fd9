package e2e

import (
	"os"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"surprisal/internal/jobs/record"
)

// testPicture is where docs/images/serve.png is to be written, and
// SURPRISAL_TEST_PICTURE_AFTER for how long the page is left to itself before.
var testPicture, testPictureAfter = os.Getenv("SURPRISAL_TEST_PICTURE"), os.Getenv("SURPRISAL_TEST_PICTURE_AFTER")

// TestServePicture makes the picture of the page for the docs: real page, server and
// stream; the runs and workers are records.
func TestServePicture(t *testing.T) {
	if testPicture == "" {
		t.Skip("SKIPPED: SURPRISAL_TEST_PICTURE does not say where to put the picture")
	}
	after, err := time.ParseDuration(testPictureAfter)
	if err != nil {
		after = 6 * time.Minute
	}
	f := newFleet(t)
	now := time.Now()
	m := f.run("20261123-084512-k3f9ab", now.Add(-5*time.Hour), 50, 240, record.RunRunning,
		map[record.State]int{record.StateDead: 2, record.StateDone: 7300, record.StateFailed: 5, record.StateWaiting: 2,
			record.StateRunning: 128})
	f.run("20261122-201500-w7c2mn", now.Add(-19*time.Hour), 10, 40, record.RunComplete,
		map[record.State]int{record.StateDone: 400})
	f.work(64, m.Jobs()[7309:], 3*time.Second)
	s := startServe(t, []string{"SURPRISAL_SERVE_TOKEN=" + serveToken})
	select {
	case <-time.After(after):
	case <-t.Context().Done():
		return
	}
	p := newPage(t, s.url)
	for name, x := range map[string]struct {
		width, height int64
		theme         string
	}{"": {1280, 1180, "light"}, ".dark.png": {1280, 1180, "dark"}, ".phone.png": {390, 2200, "light"},
		".phone-dark.png": {390, 2200, "dark"}} {
		p.open("", x.width, x.theme)
		p.ok(chromedp.Do(p.Ctx, chromedp.EmulateViewport(x.width, x.height)))
		p.until("document.querySelectorAll('.workers .spark path[d]').length > 5")
		b, err := chromedp.Run(p.Ctx, chromedp.CaptureScreenshot())
		p.ok(err)
		p.ok(os.WriteFile(testPicture+name, b, 0o644)) //nolint:gosec // a picture
	}
	p.Quiet()
}
