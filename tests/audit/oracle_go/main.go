// Checks an export and receipts with Go's own checksum-database code; nothing of BreachWatch takes part.
//
//	oracle export FOLDER VKEY          every entry stands in the signed tree
//	oracle receipt FILE ENTRY VKEY     the bytes of the file ENTRY are in the signed tree
package main

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func head(signed []byte, vkey string) (tree tlog.Tree, err error) {
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		return tree, err
	}
	opened, err := note.Open(signed, note.VerifierList(verifier))
	if err != nil {
		return tree, err
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) != 4 || lines[0] != verifier.Name() {
		return tree, errors.New("not a checkpoint of this log")
	}
	if tree.N, err = strconv.ParseInt(lines[1], 10, 64); err != nil {
		return tree, err
	}
	tree.Hash, err = tlog.ParseHash(lines[2])
	return tree, err
}

func export(folder, vkey string) error {
	signed, err := os.ReadFile(filepath.Join(folder, "checkpoint"))
	if err != nil {
		return err
	}
	tree, err := head(signed, vkey)
	if err != nil {
		return err
	}
	// TileHashReader of x/mod 0.17 leaves some tiles unchecked when several subtrees of the head share a tile,
	// so the whole tree is computed from the entries, and every tile out of that tree
	var stored []tlog.Hash
	reader := tlog.HashReaderFunc(func(places []int64) ([]tlog.Hash, error) {
		var found []tlog.Hash
		for _, place := range places {
			found = append(found, stored[place])
		}
		return found, nil
	})
	for first := int64(0); first < tree.N; first += 256 {
		width := tree.N - first
		if width > 256 {
			width = 256
		}
		path := tlog.Tile{H: 8, L: 0, N: first / 256, W: int(width)}.Path()
		bundle, err := os.ReadFile(filepath.Join(folder, "tile/entries/"+strings.TrimPrefix(path, "tile/8/0/")))
		if err != nil {
			return err
		}
		for i := int64(0); i < width; i++ {
			if len(bundle) < 2 || len(bundle)-2 < int(binary.BigEndian.Uint16(bundle)) {
				return fmt.Errorf("bundle %s is cut", path)
			}
			length := int(binary.BigEndian.Uint16(bundle))
			grown, err := tlog.StoredHashes(first+i, bundle[2:2+length], reader)
			if err != nil {
				return err
			}
			stored = append(stored, grown...)
			bundle = bundle[2+length:]
		}
		if len(bundle) > 0 {
			return fmt.Errorf("bundle %s holds more than %d entries", path, width)
		}
	}
	root, err := tlog.TreeHash(tree.N, reader)
	if err != nil {
		return err
	}
	if root != tree.Hash {
		return errors.New("the entries do not give the signed root")
	}
	for _, tile := range tlog.NewTiles(8, 0, tree.N) {
		wanted, err := tlog.ReadTileData(tile, reader)
		if err != nil {
			return err
		}
		// Go names the height too: tile/8/0/000; tlog-tiles fixes it at 8 and leaves it out
		found, err := os.ReadFile(filepath.Join(folder, "tile/"+strings.TrimPrefix(tile.Path(), "tile/8/")))
		if err != nil {
			return err
		}
		if !bytes.Equal(wanted, found) {
			return fmt.Errorf("%s is not what the entries give", tile.Path())
		}
	}
	fmt.Println(tree.N)
	return nil
}

func receipt(file, entry, vkey string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(entry)
	if err != nil {
		return err
	}
	before, signed, _ := strings.Cut(string(text), "\n\n")
	lines := strings.Split(before, "\n")
	if len(lines) < 2 || lines[0] != "c2sp.org/tlog-proof@v1" {
		return errors.New("not a tlog-proof")
	}
	index, err := strconv.ParseInt(strings.TrimPrefix(lines[1], "index "), 10, 64)
	if err != nil {
		return err
	}
	var path tlog.RecordProof
	for _, line := range lines[2:] {
		raw, err := base64.StdEncoding.Strict().DecodeString(line)
		if err != nil || len(raw) != tlog.HashSize {
			return errors.New("a bent hash")
		}
		var hash tlog.Hash
		copy(hash[:], raw)
		path = append(path, hash)
	}
	tree, err := head([]byte(signed), vkey)
	if err != nil {
		return err
	}
	return tlog.CheckRecord(path, tree.N, tree.Hash, index, tlog.RecordHash(data))
}

func main() {
	arguments, err := os.Args[1:], errors.New("export FOLDER VKEY, or receipt FILE ENTRY VKEY")
	switch {
	case len(arguments) == 3 && arguments[0] == "export":
		err = export(arguments[1], arguments[2])
	case len(arguments) == 4 && arguments[0] == "receipt":
		err = receipt(arguments[1], arguments[2], arguments[3])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
