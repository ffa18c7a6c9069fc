"""Pure decisions over frozen snapshots: values in, values out; standard library only."""
