// Package shardtest has the fixtures that the tests of package shard and of those below
// it share: files that pyarrow wrote, inputs, jobs and manifests made of them.
package shardtest
