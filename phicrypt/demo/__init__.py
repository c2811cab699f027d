"""The embedded local AWS, and the walkthrough that `phicrypt demo` tells."""
