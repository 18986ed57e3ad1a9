"""Word lists of the simulated shop: leaf categories, brands, and what titles are made of."""

from typing import NamedTuple


class Leaf(NamedTuple):
    """A leaf category: its department, what it sells, median price, and what goes with it."""

    department: str
    name: str
    nouns: str
    price: float
    complement: str


LEAVES = tuple(
    Leaf(*row)
    for row in (
        ("kitchen", "kettles", "kettle water_boiler samovar", 39.0, "tea"),
        ("kitchen", "knives", "chef_knife bread_knife cleaver", 45.0, "boards"),
        ("kitchen", "boards", "cutting_board chopping_block", 24.0, "knives"),
        ("kitchen", "pans", "frying_pan saucepan wok", 49.0, "oils"),
        ("grocery", "tea", "green_tea black_tea herbal_tea", 9.0, "biscuits"),
        ("grocery", "coffee", "coffee_beans ground_coffee espresso", 14.0, "mugs"),
        ("grocery", "biscuits", "butter_biscuits oat_cookies wafers", 5.0, "tea"),
        ("grocery", "oils", "olive_oil sesame_oil walnut_oil", 12.0, "pans"),
        ("home", "mugs", "mug cup tumbler", 11.0, "coffee"),
        ("home", "lamps", "desk_lamp floor_lamp lantern", 55.0, "bulbs"),
        ("home", "bulbs", "light_bulb filament_bulb", 8.0, "lamps"),
        ("home", "cushions", "cushion pillow bolster", 22.0, "blankets"),
        ("home", "blankets", "blanket throw quilt", 48.0, "cushions"),
        ("electronics", "phones", "phone smartphone", 420.0, "cases"),
        ("electronics", "cases", "phone_case sleeve bumper", 19.0, "chargers"),
        ("electronics", "chargers", "charger power_bank cable", 25.0, "phones"),
        ("electronics", "headphones", "headphones earbuds headset", 89.0, "phones"),
        ("electronics", "cameras", "camera action_camera", 510.0, "tripods"),
        ("electronics", "tripods", "tripod monopod", 60.0, "cameras"),
        ("clothing", "jackets", "jacket parka anorak", 110.0, "scarves"),
        ("clothing", "scarves", "scarf shawl", 28.0, "gloves"),
        ("clothing", "gloves", "gloves mittens", 24.0, "jackets"),
        ("clothing", "shirts", "shirt blouse", 42.0, "trousers"),
        ("clothing", "trousers", "trousers chinos jeans", 58.0, "belts"),
        ("clothing", "belts", "belt braces", 26.0, "trousers"),
        ("sport", "boots", "hiking_boots trail_shoes", 120.0, "socks"),
        ("sport", "socks", "hiking_socks running_socks", 13.0, "boots"),
        ("sport", "tents", "tent tarp", 230.0, "sleeping_bags"),
        ("sport", "sleeping_bags", "sleeping_bag bivy", 130.0, "tents"),
        ("sport", "bicycles", "bicycle city_bike gravel_bike", 690.0, "helmets"),
        ("sport", "helmets", "helmet bike_helmet", 62.0, "bicycles"),
        ("garden", "seeds", "tomato_seeds herb_seeds flower_seeds", 4.0, "pots"),
        ("garden", "pots", "plant_pot planter", 16.0, "soil"),
        ("garden", "soil", "potting_soil compost", 9.0, "seeds"),
        ("toys", "puzzles", "puzzle jigsaw", 20.0, "games"),
        ("toys", "games", "board_game card_game", 33.0, "puzzles"),
    )
)

BRANDS = (
    "Alvora Brenik Caldus Dorwen Elnik Fenmar Gorvia Halvik Istra Jorlund Kelmo Lumera Marvik"
    " Nordal Ostrel Pelvia Quarno Rovan Selkor Torvald Umbria Velmont Wernik Xandor Yelvi Zorica"
).split()
ADJECTIVES = (
    "classic light heavy compact folding soft warm bright slim sturdy quiet handmade everyday"
    " premium vintage modern outdoor travel mini large"
).split()
COLOURS = "red blue green black white grey amber teal ivory plum".split()
MATERIALS = "steel oak cotton wool linen glass ceramic leather bamboo copper".split()

CHANNELS = ("web", "app", "store")
REGIONS = ("north", "south", "east", "west", "overseas")

SUPPORT_MESSAGES = (
    "where is my order",
    "i want to return this item",
    "the parcel arrived damaged, please help",
    "how do i change my delivery address",
    "can i still cancel my order",
    "i was charged twice, this is unacceptable",
    "does it come with a warranty",
    "thank you, the replacement is great",
)
