"""The words of the simulated shop: its category tree, and what products of each branch are made of.

A title is put together from the words of its category, so that a text encoder can tell a frying pan from a
tent and a rustic one from an industrial one without any picture or history.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Leaf:
    """A category without children: its name, the median price in EUR, and the nouns of its titles."""

    name: str
    price: float
    nouns: tuple[str, ...]


@dataclass(frozen=True)
class Department:
    """Six leaves in the order in which one leads to the next: pans to knives to bakeware."""

    group: str
    name: str
    materials: tuple[str, ...]
    sizes: tuple[str, ...]
    leaves: tuple[Leaf, ...]

    def paths(self) -> tuple[str, ...]:
        """Category paths, for example "Home/Kitchen/Pans"."""
        return tuple(f"{self.group}/{self.name}/{leaf.name}" for leaf in self.leaves)


@dataclass(frozen=True)
class Style:
    """A taste that runs through all departments, and the words by which a title shows it."""

    name: str
    adjectives: tuple[str, ...]
    colours: tuple[str, ...]


STYLES = (
    Style("minimal", ("minimal", "plain", "slim"), ("white", "light grey", "matt black")),
    Style("rustic", ("rustic", "farmhouse", "hand-finished"), ("walnut brown", "terracotta", "cream")),
    Style("vintage", ("vintage", "retro", "heritage"), ("mustard", "burgundy", "bottle green")),
    Style("luxe", ("luxury", "premium", "deluxe"), ("gold", "midnight blue", "ivory")),
    Style("playful", ("colourful", "cheerful", "patterned"), ("coral pink", "sunny yellow", "turquoise")),
    Style("industrial", ("industrial", "rugged", "heavy-duty"), ("gunmetal", "copper", "charcoal")),
)


def _leaves(*rows: tuple[str, float, str]) -> tuple[Leaf, ...]:
    return tuple(Leaf(name, price, tuple(nouns.split(", "))) for name, price, nouns in rows)


DEPARTMENTS = (
    Department(
        "Home",
        "Kitchen",
        ("cast iron", "stainless steel", "enamel", "bamboo", "ceramic"),
        ("18 cm", "24 cm", "28 cm", "set of 2"),
        _leaves(
            ("Pans", 45, "frying pan, saucepan, wok, grill pan"),
            ("Knives", 38, "chef's knife, paring knife, bread knife, knife block"),
            ("Bakeware", 22, "cake tin, baking tray, loaf tin, pie dish"),
            ("Storage Jars", 14, "storage jar, lunch box, spice rack, bread bin"),
            ("Coffee Makers", 60, "espresso maker, French press, coffee grinder, kettle"),
            ("Utensils", 12, "spatula, ladle, whisk, chopping board"),
        ),
    ),
    Department(
        "Home",
        "Dining",
        ("stoneware", "porcelain", "glass", "linen", "oak"),
        ("small", "large", "set of 4", "set of 6"),
        _leaves(
            ("Plates", 32, "dinner plate, side plate, pasta plate, platter"),
            ("Glasses", 26, "wine glass, tumbler, carafe, champagne flute"),
            ("Cutlery", 48, "cutlery set, steak knives, teaspoons, salad servers"),
            ("Table Linen", 24, "tablecloth, napkins, table runner, placemats"),
            ("Serving Bowls", 30, "salad bowl, fruit bowl, serving dish, tray"),
            ("Candles", 16, "candle holder, scented candle, candelabra, tealight set"),
        ),
    ),
    Department(
        "Home",
        "Bedroom",
        ("cotton", "linen", "wool", "satin", "down"),
        ("single", "double", "king size", "60 x 80 cm"),
        _leaves(
            ("Duvet Covers", 55, "duvet cover, quilt cover, bedding set"),
            ("Pillows", 28, "pillow, cushion, bolster, pillowcase"),
            ("Blankets", 42, "throw, blanket, bedspread, quilt"),
            ("Sheets", 35, "fitted sheet, flat sheet, sheet set"),
            ("Bedside Lamps", 48, "bedside lamp, reading lamp, night light"),
            ("Alarm Clocks", 25, "alarm clock, clock radio, wake-up light"),
        ),
    ),
    Department(
        "Home",
        "Garden",
        ("teak", "zinc", "rattan", "terracotta clay", "steel"),
        ("small", "medium", "large", "set of 3"),
        _leaves(
            ("Planters", 26, "planter, flower pot, window box, hanging basket"),
            ("Garden Tools", 24, "hand trowel, pruning shears, rake, garden fork"),
            ("Watering", 22, "watering can, garden hose, sprinkler, rain gauge"),
            ("Outdoor Seating", 120, "garden chair, bench, deck chair, hammock"),
            ("Lanterns", 28, "garden lantern, string lights, solar lamp, fire bowl"),
            ("Barbecues", 160, "charcoal grill, gas grill, barbecue tongs, smoker"),
        ),
    ),
    Department(
        "Apparel",
        "Women",
        ("cotton", "viscose", "wool", "denim", "leather"),
        ("XS", "S", "M", "L"),
        _leaves(
            ("Dresses", 70, "wrap dress, midi dress, shirt dress, maxi dress"),
            ("Tops", 32, "blouse, T-shirt, camisole, tunic"),
            ("Jeans", 68, "skinny jeans, straight jeans, wide-leg jeans"),
            ("Coats", 140, "trench coat, parka, wool coat, puffer jacket"),
            ("Scarves", 30, "scarf, shawl, beanie, gloves"),
            ("Handbags", 85, "tote bag, shoulder bag, clutch, crossbody bag"),
        ),
    ),
    Department(
        "Apparel",
        "Men",
        ("cotton", "merino", "corduroy", "linen", "leather"),
        ("S", "M", "L", "XL"),
        _leaves(
            ("Shirts", 48, "Oxford shirt, polo shirt, flannel shirt, T-shirt"),
            ("Trousers", 62, "chinos, cargo trousers, dress trousers, shorts"),
            ("Jackets", 125, "bomber jacket, blazer, field jacket, gilet"),
            ("Sweaters", 58, "crew-neck sweater, cardigan, hoodie, turtleneck"),
            ("Belts", 32, "belt, braces, tie, pocket square"),
            ("Wallets", 36, "wallet, card holder, money clip, wash bag"),
        ),
    ),
    Department(
        "Apparel",
        "Shoes",
        ("suede", "canvas", "leather", "mesh", "rubber"),
        ("size 38", "size 40", "size 42", "size 44"),
        _leaves(
            ("Sneakers", 75, "low-top sneakers, high-top sneakers, slip-on sneakers"),
            ("Boots", 120, "ankle boots, Chelsea boots, hiking boots"),
            ("Sandals", 45, "sandals, espadrilles, flip-flops, mules"),
            ("Running Shoes", 95, "running shoes, trail shoes, spikes"),
            ("Socks", 12, "crew socks, ankle socks, knee socks, insoles"),
            ("Shoe Care", 14, "shoe polish, shoe brush, shoe tree, laces"),
        ),
    ),
    Department(
        "Electronics",
        "Audio",
        ("aluminium", "walnut", "leatherette", "mesh fabric", "steel"),
        ("compact", "full size", "travel size", "pair"),
        _leaves(
            ("Headphones", 110, "over-ear headphones, studio headphones, headset"),
            ("Earbuds", 70, "wireless earbuds, sport earbuds, in-ear monitors"),
            ("Speakers", 130, "bookshelf speaker, Bluetooth speaker, soundbar, subwoofer"),
            ("Turntables", 210, "turntable, record player, phono preamp"),
            ("Microphones", 90, "USB microphone, podcast microphone, boom arm"),
            ("Audio Cables", 16, "audio cable, speaker wire, headphone stand, record brush"),
        ),
    ),
    Department(
        "Electronics",
        "Computing",
        ("aluminium", "felt", "recycled plastic", "steel", "bamboo"),
        ("compact", "full size", "travel size", "set of 2"),
        _leaves(
            ("Keyboards", 75, "mechanical keyboard, wireless keyboard, keypad"),
            ("Mice", 38, "wireless mouse, vertical mouse, trackball, mouse mat"),
            ("Monitors", 240, "monitor, ultrawide monitor, portable monitor"),
            ("Docks", 95, "USB-C dock, monitor arm, laptop stand, card reader"),
            ("Webcams", 65, "webcam, ring light, privacy cover"),
            ("Laptop Bags", 48, "laptop sleeve, laptop backpack, briefcase"),
        ),
    ),
    Department(
        "Sports",
        "Outdoor",
        ("ripstop nylon", "titanium", "canvas", "down", "aluminium"),
        ("ultralight", "small", "medium", "large"),
        _leaves(
            ("Tents", 190, "dome tent, tunnel tent, tarp, bivouac"),
            ("Sleeping Bags", 110, "sleeping bag, sleeping mat, camping pillow"),
            ("Backpacks", 95, "hiking backpack, daypack, dry bag, hip pack"),
            ("Camp Cooking", 55, "camp stove, mess kit, fire starter, cool box"),
            ("Bottles", 24, "water bottle, thermos flask, water filter"),
            ("Headlamps", 35, "headlamp, camping lantern, torch, pocket knife"),
        ),
    ),
    Department(
        "Sports",
        "Fitness",
        ("cork", "rubber", "neoprene", "cast iron", "recycled polyester"),
        ("light", "medium", "heavy", "set of 2"),
        _leaves(
            ("Yoga Mats", 42, "yoga mat, yoga block, meditation cushion"),
            ("Activewear", 45, "leggings, training top, sports bra, tracksuit"),
            ("Weights", 58, "dumbbell, kettlebell, weight plate, barbell"),
            ("Resistance Bands", 18, "resistance band, skipping rope, suspension trainer"),
            ("Recovery", 30, "foam roller, massage gun, massage ball"),
            ("Gym Bags", 40, "gym bag, duffel bag, gym towel, shaker"),
        ),
    ),
    Department(
        "Kids",
        "Play",
        ("beech wood", "felt", "cotton", "cardboard", "plastic"),
        ("3+ years", "5+ years", "8+ years", "family size"),
        _leaves(
            ("Building", 35, "building blocks, marble run, train set, magnetic tiles"),
            ("Puzzles", 18, "jigsaw puzzle, shape sorter, brain teaser"),
            ("Board Games", 30, "board game, card game, dice game, strategy game"),
            ("Craft Kits", 22, "craft kit, paint set, modelling clay, sewing kit"),
            ("Soft Toys", 20, "teddy bear, soft rabbit, rag doll, hand puppet"),
            ("Ride-ons", 85, "balance bike, scooter, tricycle, rocking horse"),
        ),
    ),
)
