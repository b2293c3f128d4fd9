package shard

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"os"

	"surprisal/internal/shard/pq"
)

// A score file's footer has a digest of the whole file, so that a bit that flips
// anywhere in it is found: the sha256 of its bytes with noDigest in the digest's
// own place.
const fileDigestKey = keyPrefix + "file"

const digestLen = len("sha256:") + 2*sha256.Size

var noDigest = "sha256:" + string(bytes.Repeat([]byte{'0'}, 2*sha256.Size))

// fileDigestMark comes before the value: the key, then thrift's header of the
// second field, a string of digestLen bytes.
var fileDigestMark = append([]byte(fileDigestKey), 0x18, byte(digestLen))

// digestAt finds the digest's place in a file of the given size.
func digestAt(r io.ReaderAt, size int64) (int64, error) {
	foot, err := pq.ReadFooter(r, size)
	if err != nil {
		return 0, err
	}
	b := make([]byte, size-foot.DataEnd)
	if err := pq.ReadFull(r, b, foot.DataEnd); err != nil {
		return 0, err
	}
	i := bytes.Index(b, fileDigestMark)
	if i < 0 || i+len(fileDigestMark)+digestLen > len(b) {
		return 0, pq.Corruptf("its metadata has no %s: another program wrote it", fileDigestKey)
	}
	return foot.DataEnd + int64(i+len(fileDigestMark)), nil
}

// putFileDigest writes the digest into a file that was written with noDigest;
// whole has seen all of its bytes.
func putFileDigest(f *os.File, whole hash.Hash) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	at, err := digestAt(f, st.Size())
	if err != nil {
		return fmt.Errorf("digest of the file: %w", err)
	}
	_, err = f.WriteAt([]byte("sha256:"+hex.EncodeToString(whole.Sum(nil))), at)
	return err
}

// checkFileDigest reads the whole file.
func checkFileDigest(r io.ReaderAt, size int64) error {
	at, err := digestAt(r, size)
	if err != nil {
		return err
	}
	want := make([]byte, digestLen)
	if err := pq.ReadFull(r, want, at); err != nil {
		return err
	}
	h := sha256.New()
	after := at + int64(digestLen)
	parts := io.MultiReader(io.NewSectionReader(r, 0, at), bytes.NewReader([]byte(noDigest)),
		io.NewSectionReader(r, after, size-after))
	if n, err := io.Copy(h, parts); err != nil {
		return err
	} else if n != size {
		return pq.Corruptf("the file ends at byte %d of %d", n, size)
	}
	if got := "sha256:" + hex.EncodeToString(h.Sum(nil)); got != string(want) {
		return pq.Corruptf("the file's bytes have digest %s, its metadata says %q: "+
			"some have changed since it was written", got, want)
	}
	return nil
}
