package storetest

import (
	"context"
	"encoding/base64"
	"testing"

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
	key := base64.StdEncoding.EncodeToString([]byte(SecretKey))
	args := func(host, port string) []string {
		return []string{"--blobHost", host, "--blobPort", port, "--silent", "--disableTelemetry",
			"--skipApiVersionCheck",
			"--location", t.TempDir()}
	}
	addr := launch(t, bin, []string{"AZURITE_ACCOUNTS=surprisaltest:" + key}, args, func(ctx context.Context,
		addr string) error {
		cred, err := azblob.NewSharedKeyCredential("surprisaltest", key)
		if err != nil {
			return err
		}
		client, err := azblob.NewClientWithSharedKeyCredential("http://"+addr+"/surprisaltest", cred, nil)
		if err != nil {
			return err
		}
		_, err = client.CreateContainer(ctx, Bucket, nil)
		if bloberror.HasCode(err, bloberror.ContainerAlreadyExists) {
			return nil
		}
		return err
	})
	Setenv(t, map[string]string{
		"AZURE_STORAGE_ACCOUNT": "surprisaltest", "AZURE_STORAGE_KEY": key, "AZURE_STORAGE_DOMAIN": addr,
		"AZURE_STORAGE_PROTOCOL":          "http",
		"AZURE_STORAGE_IS_LOCAL_EMULATOR": "true", "AZURE_STORAGE_SAS_TOKEN": "", "AZURE_STORAGE_CONNECTION_STRING": "",
	})
}
