"""Results of experiments: what each visitor did, what that proves at any look, what it takes, a picture."""
