package score

// JobKey is a job's id in 16 bytes, where there are millions of them.
type JobKey [16]byte

// KeyOf reads an id; ok is false for what NewJob makes none of.
func KeyOf(id string) (k JobKey, ok bool) {
	var b [17]byte // 26 characters hold two bits more
	if len(id) != 26 {
		return k, false
	}
	n, err := idEncoding.Decode(b[:], []byte(id))
	if err != nil || n != len(k) {
		return k, false
	}
	k = JobKey(b[:16])
	return k, k.String() == id
}

// String is the id.
func (k JobKey) String() string { return idEncoding.EncodeToString(k[:]) }
