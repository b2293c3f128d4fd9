package storetest

import (
	"bytes"
	"context"
	"encoding/base64"
	"net"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
)

// AZ starts Azurite, Microsoft's server for tests of Azure Blob Storage, with
// Bucket as a container in it, and sets the environment to reach it.
func AZ(t testing.TB) {
	t.Helper()
	bin := find(t, "azurite")
	if bin == "" {
		t.Skip("NOT TESTED: no azurite here: make azurite (needs npm)")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	host, port, _ := net.SplitHostPort(addr)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	key := base64.StdEncoding.EncodeToString([]byte(SecretKey))
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, bin, "--blobHost", host, "--blobPort", port, "--silent", "--disableTelemetry", "--skipApiVersionCheck", "--location", t.TempDir())
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "AZURITE_ACCOUNTS=surprisaltest:" + key}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		cancel()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait() // it was killed
		if t.Failed() {
			t.Logf("azurite: %s", out.String())
		}
	})
	Setenv(t, map[string]string{
		"AZURE_STORAGE_ACCOUNT": "surprisaltest", "AZURE_STORAGE_KEY": key, "AZURE_STORAGE_DOMAIN": addr, "AZURE_STORAGE_PROTOCOL": "http",
		"AZURE_STORAGE_IS_LOCAL_EMULATOR": "true", "AZURE_STORAGE_SAS_TOKEN": "", "AZURE_STORAGE_CONNECTION_STRING": "",
	})
	cred, err := azblob.NewSharedKeyCredential("surprisaltest", key)
	if err != nil {
		t.Fatal(err)
	}
	client, err := azblob.NewClientWithSharedKeyCredential("http://"+addr+"/surprisaltest", cred, nil)
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		tctx, done := context.WithTimeout(ctx, 5*time.Second)
		_, err := client.CreateContainer(tctx, Bucket, nil)
		done()
		if err == nil || bloberror.HasCode(err, bloberror.ContainerAlreadyExists) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("azurite does not start: %v", err)
		}
	}
}
