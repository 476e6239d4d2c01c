"""The tests mirror the modules of src/keybearer."""
