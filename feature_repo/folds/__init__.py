"""What a fold is, the parts that folds are made of, who owns what a visit did."""
