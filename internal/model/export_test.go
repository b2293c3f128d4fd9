package model

// OpenBytes opens a checkpoint held in plain memory.
func OpenBytes(b []byte, cfg Config) (*Checkpoint, error) {
	return openMapping("memory", mapping{data: b}, cfg)
}

// Unpickle is unpickle, for fuzzing.
func Unpickle(b []byte) error {
	_, _, err := unpickle(b, func(*storageRef) {})
	return err
}
