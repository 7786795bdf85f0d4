"""Sub-trees for elsewhere: links, a tar stream, a manifest, BagIt, RO-Crate, CernVM-FS; all through the guard."""
