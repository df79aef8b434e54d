"""The pages of rules: what holds and held, a draft with its preview, the lab's report."""
