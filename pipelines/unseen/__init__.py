"""`endcap unseen`: what nobody was shown and why, how evenly the rest is shown, what exploring costs."""
