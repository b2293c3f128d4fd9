package jobs

import "strings"

// The environment variables that ConfigFromEnv reads. A token passed so is not
// in the list of processes, as it would be in argv.
const (
	EnvURL      = "SURPRISAL_NATS_URL" // several are separated by commas
	EnvToken    = "SURPRISAL_NATS_TOKEN"
	EnvUser     = "SURPRISAL_NATS_USER"
	EnvPassword = "SURPRISAL_NATS_PASSWORD"
	EnvCreds    = "SURPRISAL_NATS_CREDS" // this and the next three are paths
	EnvCA       = "SURPRISAL_NATS_CA"
	EnvCert     = "SURPRISAL_NATS_CERT"
	EnvKey      = "SURPRISAL_NATS_KEY"
)

// ConfigFromEnv reads the variables above; getenv is os.Getenv outside tests.
func ConfigFromEnv(getenv func(string) string) Config {
	var c Config
	if u := getenv(EnvURL); u != "" {
		c.URLs = strings.Split(u, ",")
	}
	for name, field := range c.fields() {
		*field = getenv(name)
	}
	return c
}

// Environ is what ConfigFromEnv reads back, as os/exec's Cmd.Env wants it.
// Variables that are empty are left out.
func (c Config) Environ() []string {
	var env []string
	if len(c.URLs) > 0 {
		env = append(env, EnvURL+"="+strings.Join(c.URLs, ","))
	}
	for name, field := range c.fields() {
		if *field != "" {
			env = append(env, name+"="+*field)
		}
	}
	return env
}

func (c *Config) fields() map[string]*string {
	return map[string]*string{
		EnvToken: &c.Token, EnvUser: &c.User, EnvPassword: &c.Password, EnvCreds: &c.CredsFile,
		EnvCA: &c.CAFile, EnvCert: &c.CertFile, EnvKey: &c.KeyFile,
	}
}
