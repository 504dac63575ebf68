"""SimCLR on MindSpore; README.md, Script Description, lists the modules in the order of data flow."""
