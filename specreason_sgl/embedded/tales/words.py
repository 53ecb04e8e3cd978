# ruff: noqa: SIM905 - words are easier to read in a line than in quotation marks
"""The words of tales: people, things, verbs, holders, units, numbers.

Names and things are open lists: those here, and invented ones without end. Each word belongs to one split for ever, by
a hash of it, so that nothing that is tested was ever trained on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from random import Random
from typing import Literal

Split = Literal["train", "dev", "test"]

INVENTED = 0.5
"""The share of names and things that are invented words."""
UNNAMED = 0.15
"""The share of people who are told by what they are, such as the baker, my brother, or the red team."""


def split_of(word: str) -> Split:
    """The split that a name or a thing belongs to."""
    place = sha256(word.lower().encode()).digest()[0] % 10
    return "test" if place == 9 else "dev" if place == 8 else "train"


SHE = (
    "Ada Adele Agnes Aisha Alba Alice Alma Amelia Amina Amy Ana Anika Anna Anya Asha Astrid Aurora Beatrice "
    "Bella Bianca Bridget Camila Carla Carmen Celia Chloe Clara Dalia Dana Daphne Daria Diana Dora Edith Ela "
    "Elena Elif Elisa Ella Elsa Emily Emma Erika Esra Esther Eva Farah Fatima Fiona Flora Frida Gemma Gina "
    "Giulia Grace Greta Hana Hanna Hazel Heidi Helen Ida Ilse Ines Ingrid Irene Iris Isabel Ivy Jana Jane "
    "Jasmin Jenny Joan Johanna Judith Julia Kate Katya Keiko Kira Lara Laura Layla Lea Leila Lena Leonie Lily "
    "Lina Lola Lotte Lucia Lucy Luna Lydia Maja Mara Margot Maria Marta Mary Maya Mei Mia Mila Mina Mira Molly "
    "Mona Nadia Naomi Nela Nina Noor Nora Olga Olivia Paula Petra Pia Priya Rachel Rita Rosa Ruby Ruth Sade "
    "Salma Sara Selma Sofia Stella Susan Tara Tess Thea Tina Ursula Vera Victoria Viola Wanda Willa Yara Yuki "
    "Zara Zoe Grandma Mum Mom"
).split()
HE = (
    "Aaron Abdul Adam Ahmed Alan Albert Alex Ali Amir Anders Andre Anton Arne Arthur Ben Bernd Boris Brian "
    "Bruno Carl Carlos Chen Chris Dan Daniel Dario David Dennis Diego Dmitri Eli Elias Emil Emre Enzo Eric "
    "Ernst Ethan Felix Finn Francis Frank Fred Gabriel Georg George Gustav Hans Harry Hassan Hector Henry Hugo "
    "Ian Igor Isaac Ivan Jack Jacob Jamal James Jan Jens Jim Joe Joel John Jonas Jon Jorge Jose Josef Juan Kai "
    "Karim Kasper Kenji Kofi Kurt Lars Leo Leon Levi Liam Linus Louis Luca Lukas Malik Marco Mark Martin Mateo "
    "Matt Max Mehmet Michael Miguel Milan Mohamed Moritz Nico Niels Noah Oleg Oliver Omar Oscar Otto Pablo Paul "
    "Pedro Peter Philip Pierre Rafael Raj Ravi Richard Robert Rolf Ruben Said Sam Samuel Sergei Simon Stefan "
    "Steve Sven Tarik Theo Thomas Tim Tobias Tom Tomas Uwe Viktor Vincent Walter Will Xavier Yusuf Yves Zack "
    "Grandpa Dad"
).split()
ROLES = (
    "farmer baker teacher gardener girl boy woman man king doctor driver hunter painter cook nurse neighbour child "
    "student sailor tailor dealer seller pirate wizard queen player runner reader writer singer dancer grocer butcher "
    "barber potter miner clerk waiter coach captain professor mechanic carpenter florist librarian collector tourist"
).split()
PLACES = (
    "shop school library museum zoo factory club team class market garden farm restaurant bakery bookshop kitchen "
    "hotel hospital bank company village train ship bus truck warehouse"
).split()
CREATURES = (
    "birds ducks children people passengers sheep cows cats dogs fish bees ants frogs students visitors guests players "
    "cars boats bikes horses rabbits monkeys swans geese crows butterflies penguins hens pigs goats squirrels turtles "
    "seals gulls pigeons sailors tourists dancers soldiers buses trucks planes scooters boys girls men women owls "
    "bears snails ponies singers workers doctors teachers"
).split()
SPOTS = tuple(
    (before, noun)
    for before, nouns in {
        "on": "tree shelf lake field bus farm roof hill train table plate desk beach wall bench island wire boat ship "
        "bridge playground board counter meadow stage ladder branch raft carpet",
        "in": "park room garden pool hall street house zoo yard basket jar bowl fridge cage barn pond cupboard forest "
        "library museum garage theatre cinema tank aquarium shop stable kitchen tent tower village town office drawer "
        "chest river harbour valley cave attic cellar school club",
        "at": "party fair meeting station camp concert market airport picnic wedding",
    }.items()
    for noun in nouns.split()
)
"""Where something can be, by the word before it."""
THINGS = (
    "acorns almonds apples apricots arrows avocados badges bagels balloons balls bananas bangles beads beans "
    "bears beetles bells belts bikes biscuits blankets blocks boats bolts books bottles bows bracelets bricks "
    "brooms brushes buckets buns burgers buttons cakes candies candles cans caps cards carrots cars cartons "
    "cartoons chairs charms cherries chestnuts chips chocolates clips cloths clovers coats coconuts coins combs "
    "comics cookies corks coupons crabs crackers crayons crowns cubes cucumbers cups curtains cushions daisies "
    "dates diamonds dice dolls donuts doughnuts drawings dresses drums ducks earrings eggs envelopes erasers "
    "eels fans feathers ferns figs files fish flags flowers flutes forks frogs games gems ghosts glasses gloves "
    "goats grapes guitars hammers hats helmets herbs hooks horns horses jackets jars jewels keys kites knives "
    "labels ladders lamps leaflets lemons lentils letters lilies limes magazines magnets mangoes maps marbles "
    "markers masks mats medals melons mints mirrors moths muffins mugs mushrooms nails napkins necklaces "
    "needles nests notebooks notes nuts olives onions oranges oysters paintings pancakes papers parcels peaches "
    "peanuts pearls pears peas pebbles pencils pens peppers photos pies pillows pins pinecones plants plates "
    "plums pockets poems postcards posters potatoes pots pretzels prizes pumpkins puppets puzzles raisins "
    "ribbons rings robots rockets rolls ropes roses rulers sandwiches saucers sausages scarves seashells seats "
    "seeds shawls sheets shells shirts shoes shovels skirts slippers snails socks souvenirs spiders spools "
    "spoons springs stamps stars stickers sticks stones stools straws strawberries sweaters sweets swords "
    "tables tarts teacups tickets tiles tomatoes tools tops towels toys trains trays trees trophies trucks "
    "tulips turtles umbrellas vases vests violets waffles walnuts watches whistles worms wreaths yoyos"
).split()
KINDS = (
    "blue red green yellow white black purple golden silver small big old new wooden plastic paper glass toy "
    "round striped tiny lucky rare spare"
).split()
COLOURED = (("grey", "gray"), ("multicoloured", "multicolored"), ("cream-coloured", "cream-colored"))
"""British and American."""


@dataclass(frozen=True)
class Verb:
    """A verb in three forms; behind the number comes ``tail``, if it has one."""

    base: str
    third: str
    past: str
    tail: str = ""

    @property
    def forms(self) -> tuple[str, str, str]:
        """All three."""
        return self.base, self.third, self.past

    def form(self, tense: str, plural: bool) -> str:
        """The form for a subject."""
        return self.past if tense == "past" else self.base if plural else self.third


def _verbs(lines: str) -> tuple[Verb, ...]:
    found = []
    for line in lines.split(","):
        base, third, past, *tail = line.split()
        found.append(Verb(base, third, past, " ".join(tail)))
    return tuple(found)


GAINS = _verbs(
    "find finds found, buy buys bought, get gets got, win wins won, collect collects collected, receive "
    "receives received, make makes made, pick picks picked, gather gathers gathered, earn earns earned, borrow "
    "borrows borrowed, take takes took, add adds added, order orders ordered, gain gains gained, discover "
    "discovers discovered, obtain obtains obtained, bring brings brought, catch catches caught, purchase "
    "purchases purchased, inherit inherits inherited, build builds built, pick picks picked up, acquire "
    "acquires acquired, harvest harvests harvested, save saves saved, fetch fetches fetched, bake bakes baked, "
    "grow grows grew, draw draws drew, print prints printed, paint paints painted, sew sews sewed, unpack "
    "unpacks unpacked, rent rents rented, choose chooses chose, keep keeps kept, dig digs dug up, bring brings "
    "brought home, take takes took home, carry carries carried home, secure secures secured, produce produces "
    "produced, create creates created, accept accepts accepted"
)
LOSSES = _verbs(
    "lose loses lost, sell sells sold, give gives gave away, drop drops dropped, use uses used, donate donates "
    "donated, break breaks broke, throw throws threw away, eat eats ate, spend spends spent, hand hands handed "
    "out, trade trades traded away, lend lends lent out, send sends sent away, waste wastes wasted, misplace "
    "misplaces misplaced, remove removes removed, return returns returned, discard discards discarded, give "
    "gives gave to a friend, give gives gave to the neighbours, put puts put aside, share shares shared out, "
    "ruin ruins ruined, leave leaves left behind, swap swaps swapped away, use uses used up, hide hides hid, "
    "burn burns burned, recycle recycles recycled, give gives gave to a cousin, pass passes passed on, crush "
    "crushes crushed, mail mails mailed off, deliver delivers delivered, feed feeds fed to a dog, smash smashes "
    "smashed, tear tears tore up, spill spills spilled, bury buries buried, cut cuts cut off, melt melts melted "
    "down, pay pays paid, eat eats ate up, sell sells sold off, forget forgets forgot, destroy destroys "
    "destroyed, give gives gave to a brother, give gives gave to the class, give gives gave to charity, give "
    "gives gave to the teacher, give gives gave back, take takes "
    "took away, drop drops dropped off, consume consumes consumed, abandon abandons abandoned, hand hands "
    "handed over"
)
DEEDS = _verbs(
    "score scores scored, see sees saw, count counts counted, plant plants planted, read reads read, write writes "
    "wrote, visit visits visited, drink drinks drank, wash washes washed, carry carries carried, repair repairs "
    "repaired, move moves moved, touch touches touched, load loads loaded, clean cleans cleaned, miss misses missed"
)
"""What can be done with things without having more or fewer of them."""
HOLDERS = (
    "bags boxes jars trays packs baskets bowls drawers shelves cases crates sacks buckets tins rows piles "
    "stacks packets bundles sets bins chests albums pouches cartons cups plates tables rooms pages rolls"
).split()
RELATIVES = (
    "sister brother mother father cousin aunt uncle friend grandmother grandfather classmate daughter son neighbour"
).split()
MINE = tuple(
    (f"my {relative}", pronoun)
    for pronoun, relatives in {
        "she": "sister mother aunt grandmother daughter mum mom grandma",
        "he": "brother father uncle grandfather son dad grandpa",
        "they": "cousin friend neighbour classmate teacher boss",
    }.items()
    for relative in relatives.split()
)
GROUPS = "team class group club shop school house".split()
SORTS = (
    "things items objects pieces toys animals plants people children pets vehicles presents snacks tools fruits "
    "adults prizes parts articles"
).split()
"""What different things are together."""
RECEIVERS = (
    "friends children students players guests cousins neighbours classmates teams workers pupils visitors".split()
)
UNITS = (("dozen", 12), ("dozen", 12), ("pairs of", 2))
SPANS = (
    ("weeks", "days", 7),
    ("years", "months", 12),
    ("hours", "minutes", 60),
    ("minutes", "seconds", 60),
    ("days", "hours", 24),
)
CURRENCIES = (("euros", "€"), ("dollars", "$"), ("pounds", "£"), ("francs", ""), ("cents", ""), ("pesos", ""))

AMERICAN = {
    "neighbours": "neighbors",
    "coloured": "colored",
    "grey": "gray",
    "favourite": "favorite",
    "metres": "meters",
}

NUMBER_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
).split()
MULTIPLES = {2: "twice", 3: "three times", 4: "four times", 5: "five times", 6: "six times"}

_ONSETS = "b br c ch d dr f fl g gr h j k kl l m n p pl qu r s sh sk st t th tr v w y z".split()
_VOWELS = "a e i o u ai ea oo".split()
_RUDE = ("fuck", "shit", "cunt", "dick", "cock", "fag", "nig", "rape", "cum", "kike", "spic")
_CODAS = ["", "", "", "l", "m", "n", "r", "nd", "st", "ck", "sh", "mp", "x", "b", "g"]


def invented_word(rng: Random) -> str:
    """A word that sounds like one, and is no rude one."""
    while True:
        parts = [
            rng.choice(_ONSETS)
            + rng.choice(_VOWELS)
            + (rng.choice(_CODAS) if last else rng.choice(("", "", "l", "n", "r")))
            for last in ([False] * rng.choice((0, 1, 1, 1)) + [True])
        ]
        if not any(rude in "".join(parts) for rude in _RUDE):
            return "".join(parts)


def plural(word: str) -> str:
    """The plural of a regular noun."""
    return word + ("es" if word.endswith(("s", "x", "ch", "sh", "z")) else "s")


def article(noun: str) -> str:
    """A noun with its indefinite article."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def singular(words: str) -> str:
    """One of what is named in the plural."""
    *before, word = [words] if words in IRREGULAR else words.split(" ")
    if word in IRREGULAR:
        one = IRREGULAR[word]
    elif word.endswith("ies") and word not in {"pies", "cookies", "movies", "zombies"}:
        one = word[:-3] + "y"
    elif word.endswith(("ches", "shes", "sses", "xes", "toes", "goes")):
        one = word[:-2]
    else:
        one = word.removesuffix("s")
    return " ".join((*before, one))


IRREGULAR = {
    "children": "child", "sheep": "sheep", "geese": "goose", "knives": "knife", "scarves": "scarf",
    "shelves": "shelf", "fish": "fish", "dice": "die", "people": "person", "boxes": "box", "pairs of": "pair of",
    "halves": "half", "men": "man", "women": "woman", "buses": "bus",
}  # fmt: skip


@dataclass(frozen=True)
class Person:
    """Somebody in a tale."""

    name: str
    pronoun: str

    @property
    def owning(self) -> str:
        """His, her, or their."""
        return {"she": "her", "he": "his", "they": "their", "it": "its"}[self.pronoun]

    @property
    def has_role(self) -> bool:
        """Whether it is somebody told by what they are."""
        return self.name.removeprefix("the ") in ROLES and self.name.startswith("the ")

    @property
    def unfamiliar(self) -> Person:
        """The same as told for the first time: a baker."""
        return Person(article(self.name.removeprefix("the ")), self.pronoun)

    @property
    def object(self) -> str:
        """Her, him, them, or it."""
        return {"she": "her", "he": "him", "they": "them", "it": "it"}[self.pronoun]


def person(rng: Random, split: Split, taken: Sequence[str] = ()) -> Person:
    """Somebody of this split who is not there yet."""
    while True:
        if rng.random() < UNNAMED:
            name, pronoun = rng.choice(
                (
                    (f"the {rng.choice(ROLES)}", rng.choice(("she", "he", "they"))),
                    (f"the {rng.choice(PLACES)}", "it"),
                    (f"the {rng.choice(KINDS)} {rng.choice(GROUPS)}", "it"),
                    rng.choice(MINE),
                )
            )
            if split_of(name.removeprefix("the ")) == split and name not in taken:
                return Person(name, pronoun)
            continue
        if rng.random() < INVENTED:
            name, pronoun = invented_word(rng).capitalize(), rng.choice(("she", "he", "they"))
        else:
            names, pronoun = rng.choice(((SHE, "she"), (HE, "he")))
            name = rng.choice(names)
        if split_of(name) == split and name not in taken and name.lower() not in RESERVED:
            return Person(name, pronoun if rng.random() < 0.9 else "they")


def spot(rng: Random, split: Split) -> tuple[str, str]:
    """A place of this split, behind the word that comes before it."""
    return rng.choice([one for one in SPOTS if split_of(one[1]) == split])


def creatures(rng: Random, split: Split) -> str:
    """Those of this split who come and go by themselves, in the plural."""
    while True:
        made = rng.random() < INVENTED
        word = plural(invented_word(rng)) if made else rng.choice(CREATURES)
        if split_of(word) == split and not (made and {word, singular(word)} & RESERVED):
            return word


def thing(rng: Random, split: Split, taken: Sequence[str] = ()) -> str:
    """Something of this split that is not there yet, in the plural."""
    while True:
        made = rng.random() < INVENTED
        word = plural(invented_word(rng)) if made else rng.choice(THINGS)
        if (
            split_of(word) != split
            or (made and {word, singular(word)} & RESERVED)
            or any(word in other.split() for other in taken)
        ):
            continue
        kind = rng.choice(KINDS) if rng.random() < 0.12 else ""
        if rng.random() < 0.02:
            kind = rng.choice(rng.choice(COLOURED))
        return f"{kind} {word}".strip()


def plain(rng: Random) -> Callable[[int], str]:
    """How numbers are written in one tale: digits, or words up to twenty."""
    spelled = rng.random()
    share = 0.0 if spelled < 0.6 else 1.0 if spelled > 0.9 else 0.4

    def written(n: int) -> str:
        return NUMBER_WORDS[n] if 0 < n <= 20 and rng.random() < share else str(n)

    return written


RESERVED = frozenset(
    (
        "a all also an and another answer are as at away back be been before began begin begins both but by check "
        "count day days each equally every fewer first for from further get gets got had has have he her here his "
        "hold holds how i if in is it itself keeps least left less let lots make makes many more most much next no "
        "nobody none not now of on one only or other out over own per price put puts she so some start starts still "
        "than that the their them then there these they this those times to together total twice up was we were "
        "what when where which who with yes"
    ).split()
    + NUMBER_WORDS
    + [form for noun in (*HOLDERS, *RECEIVERS, *THINGS, *ROLES, *PLACES, *SORTS) for form in (noun, singular(noun))]
    + [noun for _, noun in SPOTS]
    + [form for noun in CREATURES for form in (noun, singular(noun))]
    + "dozen pair pairs week weeks month months year years hour hours minute minutes second seconds half".split()
    + [form for verb in (*GAINS, *LOSSES, *DEEDS) for form in verb.forms]
)
"""Words that no invented name or thing may be."""
