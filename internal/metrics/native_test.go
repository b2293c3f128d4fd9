package metrics

import (
	"net/http"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
)

// TestNativeHistogram: a scraper that understands native histograms gets one of the
// perplexities, within a tenth, and classic buckets beside it.
func TestNativeHistogram(t *testing.T) {
	w := NewWorker("v")
	for i := range 1000 {
		w.Perplexity(2 + float64(i))
	}
	s, err := Serve(w.Set, ServerConfig{Address: ":0"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	req, err := http.NewRequest(http.MethodGet, "http://"+s.Addr()+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", string(expfmt.NewFormat(expfmt.TypeProtoDelim)))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	for d := expfmt.NewDecoder(resp.Body, expfmt.ResponseFormat(resp.Header)); ; {
		var f dto.MetricFamily
		if err := d.Decode(&f); err != nil {
			t.Fatalf("no perplexities: %v", err)
		}
		if f.GetName() != "surprisal_document_perplexity" {
			continue
		}
		h := f.GetMetric()[0].GetHistogram()
		if h.GetSampleCount() != 1000 || len(h.GetPositiveSpan()) == 0 || h.GetSchema() < 3 || len(h.GetBucket()) == 0 {
			t.Errorf("%d perplexities, schema %d, %d spans, %d classic buckets", h.GetSampleCount(), h.GetSchema(),
				len(h.GetPositiveSpan()), len(h.GetBucket()))
		}
		return
	}
}
