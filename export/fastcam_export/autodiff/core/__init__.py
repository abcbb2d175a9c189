"""What every gradient rule builds on: the rule registry, the builder of nodes, shapes, copies of definitions."""
