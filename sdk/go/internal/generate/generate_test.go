package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

const sdk = "../.."

func TestTheGeneratedFilesAreCurrent(t *testing.T) {
	files, err := generate(filepath.Join(sdk, "bundle.json"))
	if err != nil {
		t.Fatal(err)
	}
	for name, wanted := range files {
		found, err := os.ReadFile(filepath.Join(sdk, name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(found, wanted) {
			t.Errorf("%s is stale: run go generate", name)
		}
	}
	there, err := filepath.Glob(filepath.Join(sdk, "fields_*.go"))
	if err != nil || len(there) != len(files) {
		t.Errorf("%d generated files, and %v are there: %v", len(files), there, err)
	}
}
