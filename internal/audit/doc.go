// Package audit examines what is there: Verify reads a run's outputs again,
// CollectGarbage removes what nobody needs, Diagnose looks at what runs depend on.
// It works on top of dispatch, whose locks it takes before it changes anything.
package audit
