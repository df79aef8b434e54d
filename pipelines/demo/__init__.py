"""The demo: a shop on the screen, shoppers who visit it, a canary that holds and one that falls."""
