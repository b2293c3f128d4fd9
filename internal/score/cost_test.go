package score

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestCharge(t *testing.T) {
	m := planned(1, 1)
	c := func(queue string, jobs int) Cost {
		return Cost{Queue: queue, Jobs: jobs, Tokens: int64(jobs) * 1000, Joules: float64(jobs) * 50,
			GPUTokens: int64(jobs) * 2000, GPUSeconds: float64(jobs)}
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
			t.Errorf("step %d: changed %v, %d jobs, want %v and %d: %+v", i, got, m.Cost().Jobs, step.changed,
				step.jobs,
				m.Costs)
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
	for _, bad := range []Cost{{Jobs: -1}, {Joules: -1}, {GPUSeconds: math.NaN()}, {Joules: math.Inf(1)},
		{Queue: strings.Repeat("x", 65)},
		{StepSeconds: 3}, {Steps: []CostStep{{}}}, {StepSeconds: 2, Steps: []CostStep{{At: 3}}}, {StepSeconds: 1,
			Steps: []CostStep{{At: 3}, {At: 3}}},
		{StepSeconds: 1, Steps: []CostStep{{Joules: -1}}}, {StepSeconds: 1, Steps: make([]CostStep, maxSteps+1)}} {
		m.Costs = []Cost{bad}
		if err := m.Validate(); err == nil || !strings.Contains(err.Error(), "cost") {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

// TestSteps: the energy of many jobs over any time is in few steps, the same ones in
// whatever order the jobs come and the sums of queues are made.
func TestSteps(t *testing.T) {
	for _, tc := range []struct {
		jobs int
		gap  time.Duration
	}{{1, 0}, {100, time.Second}, {121, time.Second}, {5000, 7 * time.Second}, {3000, 5 * time.Hour}} {
		begin := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
		order := rand.New(rand.NewPCG(1, 1)).Perm(tc.jobs)
		var forth, any, a, b Cost
		for i := range tc.jobs {
			forth.Spend(begin.Add(time.Duration(i)*tc.gap), 10, 4)
			any.Spend(begin.Add(time.Duration(order[i])*tc.gap), 10, 4)
			of := &a
			if order[i]%7 == 0 {
				of = &b
			}
			of.Spend(begin.Add(time.Duration(order[i])*tc.gap), 10, 4)
		}
		m := &Manifest{Costs: []Cost{a, b}}
		if !reflect.DeepEqual(forth, any) || !reflect.DeepEqual(forth, m.Cost()) {
			t.Errorf("%d jobs: %+v\n%+v\n%+v", tc.jobs, forth, any, m.Cost())
		}
		if err := m.checkCosts(); err != nil {
			t.Error(err)
		}
		joules := 0.0
		for _, s := range forth.Steps {
			joules += s.Joules
		}
		if n := len(forth.Steps); joules != forth.Joules || forth.Joules != 4*float64(tc.jobs) || n > maxSteps ||
			n < min(tc.jobs, maxSteps/2) {
			t.Errorf("%d jobs: %d steps of %d s, %g J of %g", tc.jobs, n, forth.StepSeconds, joules, forth.Joules)
		}
	}
}
