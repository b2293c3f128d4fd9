package main

import (
	"slices"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"surprisal/internal/cli"
)

// TestFlagsAreListed holds the list that the other program reads to this one's flags.
func TestFlagsAreListed(t *testing.T) {
	var have []string
	add := func(f *pflag.Flag) {
		if f.Name != "help" && f.Name != "version" && !slices.Contains(have, f.Name) {
			have = append(have, f.Name)
		}
	}
	var visit func(*cobra.Command)
	visit = func(c *cobra.Command) {
		c.Flags().VisitAll(add)
		c.PersistentFlags().VisitAll(add)
		for _, sub := range c.Commands() {
			visit(sub)
		}
	}
	visit(newRoot(cli.Life{}))
	listed := cli.WorkerFlags()
	slices.Sort(have)
	slices.Sort(listed)
	if !slices.Equal(have, listed) {
		t.Errorf("flags\n%v, listed\n%v", have, listed)
	}
}
