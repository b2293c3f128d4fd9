package cli

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/spf13/viper"

	"surprisal/internal/usage"
)

const (
	configFlag = "config"
	configFile = "surprisal.yaml" // read where it is there and no other file is named
)

// ConfigFlag adds --config.
func ConfigFlag(f *pflag.FlagSet) {
	f.String(configFlag, "", "config file: YAML, TOML or JSON (default ./"+configFile+" if it exists)")
}

// Load sets the flags of cmd that the command line did not, from the environment
// first, then from the config file. Both programs may read one file: a key must be
// a flag of either. others are those of the other program.
func Load(cmd *cobra.Command, others []string) error {
	file, err := readConfig(cmd)
	if err != nil {
		return err
	}
	known := flagNames(cmd.Root())
	for _, name := range others {
		known[name] = true
	}
	for _, key := range slices.Sorted(maps.Keys(file.values)) {
		if !known[key] {
			return usage.Errorf("config file %s: there is no flag %q", file.name, key)
		}
	}
	var first error
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if f.Changed || first != nil || f.Name == "help" || f.Name == "version" || f.Name == configFlag {
			return
		}
		from := variable(f.Name)
		value, ok := os.LookupEnv(from)
		if !ok {
			from = "config file " + file.name
			value, ok = file.values[f.Name]
		}
		if !ok || value == "" {
			return
		}
		if err := cmd.Flags().Set(f.Name, value); err != nil {
			first = usage.Errorf("%s: --%s: %w", from, f.Name, err)
		}
	})
	return first
}

// variable is the environment variable of a flag.
func variable(flag string) string {
	return "SURPRISAL_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// config is a file's values by flag.
type config struct {
	name   string
	values map[string]string
}

// readConfig reads the file that the flag or the variable names, else the one in the
// working directory. A flag or a variable that is set to nothing asks for none.
func readConfig(cmd *cobra.Command) (config, error) {
	f := cmd.Flags().Lookup(configFlag)
	name, named := f.Value.String(), f.Changed
	if !named {
		name, named = os.LookupEnv(variable(configFlag))
	}
	switch {
	case named && name == "":
		return config{}, nil
	case !named:
		name = configFile
		if _, err := os.Stat(name); err != nil {
			return config{}, nil //nolint:nilerr // there need not be one
		}
	}
	v := viper.New()
	v.SetConfigFile(name)
	if err := v.ReadInConfig(); err != nil {
		return config{}, usage.Errorf("config file %s: %w", name, err)
	}
	c := config{name, map[string]string{}}
	for _, key := range v.AllKeys() {
		if list, ok := v.Get(key).([]any); ok {
			s := make([]string, len(list))
			for i, x := range list {
				s[i] = fmt.Sprint(x)
			}
			c.values[key] = strings.Join(s, ",")
		} else {
			c.values[key] = v.GetString(key)
		}
	}
	return c, nil
}

// flagNames lists the flags of a program.
func flagNames(root *cobra.Command) map[string]bool {
	names := map[string]bool{}
	for _, c := range append(root.Commands(), root) {
		for _, set := range []*pflag.FlagSet{c.Flags(), c.PersistentFlags()} {
			set.VisitAll(func(f *pflag.Flag) { names[f.Name] = true })
		}
	}
	delete(names, "help")
	delete(names, "version")
	return names
}
