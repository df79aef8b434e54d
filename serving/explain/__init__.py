"""Why a list is as it is: what brought and moved each slot, and where an absent product fell, by how much."""
