package score

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
)

func TestCharge(t *testing.T) {
	m := planned(1, 1)
	c := func(queue string, jobs int) Cost {
		return Cost{Queue: queue, Jobs: jobs, Tokens: int64(jobs) * 1000, Joules: float64(jobs) * 50, GPUTokens: int64(jobs) * 2000, GPUSeconds: float64(jobs)}
	}
	if m.Charge(Cost{Queue: "a"}) || m.Costs != nil {
		t.Error("a queue without GPUs is told of")
	}
	for i, step := range []struct {
		cost    Cost
		changed bool
		jobs    int // in all
	}{
		{c("a", 3), true, 3},
		{c("a", 3), false, 3}, // told again
		{c("a", 5), true, 5},  // and more
		{c("b", 2), true, 7},  // another queue
		{c("b", 1), true, 8},  // whose records were removed, and one job done since
		{c("b", 4), true, 11},
		{c("a", 5), false, 11},
	} {
		if got := m.Charge(step.cost); got != step.changed || m.Cost().Jobs != step.jobs {
			t.Errorf("step %d: changed %v, %d jobs, want %v and %d: %+v", i, got, m.Cost().Jobs, step.changed, step.jobs, m.Costs)
		}
	}
	for i := range 100 {
		m.Charge(c(fmt.Sprint("q", i), 1))
	}
	if len(m.Costs) > maxCosts+1 || m.Cost().Jobs != 111 {
		t.Errorf("%d entries, %d jobs", len(m.Costs), m.Cost().Jobs)
	}
	sum := m.Cost()
	if j, ok := sum.JoulesPerMillionTokens(); !ok || math.Abs(j-50_000) > 1e-6 {
		t.Errorf("%g J a million tokens", j)
	}
	if d, ok := sum.GPUDaysPerBillionTokens(); !ok || math.Abs(d-1e9/2000/86400) > 1e-9 {
		t.Errorf("%g GPU-days a billion tokens", d)
	}
	if _, ok := (Cost{GPUTokens: 1}).JoulesPerMillionTokens(); ok {
		t.Error("energy that nobody told of")
	}
}

func TestManifestWithCosts(t *testing.T) {
	m := planned(2, 2)
	m.ConfigDigest = ConfigDigest(m.Options, m.Model)
	before, err := json.Marshal(m)
	if err != nil || strings.Contains(string(before), "cost") {
		t.Fatalf("%s, %v", before, err)
	}
	m.Charge(Cost{Queue: "a", Jobs: 1, Tokens: 10, Joules: 2.5, GPUTokens: 10, GPUSeconds: .5})
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	var back Manifest
	if err := json.Unmarshal(b, &back); err != nil || !reflect.DeepEqual(back.Costs, m.Costs) {
		t.Errorf("%+v, %v", back.Costs, err)
	}
	for _, bad := range []Cost{{Jobs: -1}, {Joules: -1}, {GPUSeconds: math.NaN()}, {Joules: math.Inf(1)}, {Queue: strings.Repeat("x", 65)}} {
		m.Costs = []Cost{bad}
		if err := m.Validate(); err == nil || !strings.Contains(err.Error(), "cost") {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}
