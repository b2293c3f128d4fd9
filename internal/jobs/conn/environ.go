package conn

import (
	"os"
	"strings"
)

// EnvURL is the variable with the servers' URLs, separated by commas.
const EnvURL = "SURPRISAL_NATS_URL"

// Setting is one setting of a Config that a person can make.
type Setting struct {
	Name  string  // the flag's, "nats-ca"; empty for secrets, which must not be in process lists
	Env   string  // the environment variable's
	Usage string  // for a flag's help
	Value *string // in the Config
}

// Settings lists the settings besides the URLs.
func (c *Config) Settings() []Setting {
	return []Setting{
		{"", "SURPRISAL_NATS_TOKEN", "", &c.Token},
		{"nats-token-file", "SURPRISAL_NATS_TOKEN_FILE", "file with the token", &c.TokenFile},
		{"nats-user", "SURPRISAL_NATS_USER", "user name", &c.User},
		{"", "SURPRISAL_NATS_PASSWORD", "", &c.Password},
		{"nats-password-file", "SURPRISAL_NATS_PASSWORD_FILE", "file with the user's password", &c.PasswordFile},
		{"nats-nkey", "SURPRISAL_NATS_NKEY", "file with an NKey seed", &c.NKeyFile},
		{"nats-creds", "SURPRISAL_NATS_CREDS", "credentials file (JWT and NKey seed)", &c.CredsFile},
		{"nats-ca", "SURPRISAL_NATS_CA", "CA certificate that signs the server's", &c.CAFile},
		{"nats-cert", "SURPRISAL_NATS_CERT", "client certificate, for mutual TLS", &c.CertFile},
		{"nats-key", "SURPRISAL_NATS_KEY", "the client certificate's key", &c.KeyFile},
	}
}

// FromEnv reads EnvURL and the variables of Settings; getenv is os.Getenv
// outside tests.
func FromEnv(getenv func(string) string) Config {
	var c Config
	if u := getenv(EnvURL); u != "" {
		c.URLs = strings.Split(u, ",")
	}
	for _, s := range c.Settings() {
		*s.Value = getenv(s.Env)
	}
	return c
}

// Environ gives the variables that FromEnv reads, for os/exec's Cmd.Env. It includes
// those without a value, so that none is inherited.
func (c Config) Environ() []string {
	env := []string{EnvURL + "=" + strings.Join(c.URLs, ",")}
	for _, s := range c.Settings() {
		env = append(env, s.Env+"="+*s.Value)
	}
	return env
}

// maxSecretBytes bounds a file that holds a token or a password.
const maxSecretBytes = 64 << 10

// ReadSecret reads a file with a secret, without the final line break that editors add.
func ReadSecret(path string) (string, error) {
	st, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if !st.Mode().IsRegular() || st.Size() > maxSecretBytes {
		return "", &os.PathError{Op: "read", Path: path, Err: errNotSecret}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	s := strings.TrimRight(string(b), "\r\n")
	if s == "" || strings.ContainsAny(s, "\r\n\x00") {
		return "", &os.PathError{Op: "read", Path: path, Err: errNotSecret}
	}
	return s, nil
}
