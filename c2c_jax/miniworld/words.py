"""The words and sentences of the mini world's captions.

No word names two values of an attribute, and no noun, verb or call names two sources.
"""

from typing import NamedTuple


class SourceWords(NamedTuple):
    """The words for one source.

    nouns: names of the thing; the plural adds an s. verbs: what it does, as base form, third person and present
    participle. calls: nouns for its sound, singular and plural.
    """

    nouns: tuple[str, ...]
    verbs: tuple[tuple[str, ...], ...]
    calls: tuple[tuple[str, ...], ...]


def _source(nouns: str, verbs: str, calls: int) -> SourceWords:
    """Parses the words of a source. calls: the number of verbs, from the first, that are also nouns."""
    forms = tuple(tuple(verb.split()) for verb in verbs.split(", "))
    return SourceWords(tuple(nouns.split(", ")), forms, tuple(form[:2] for form in forms[:calls]))


SOURCE_WORDS = {
    "bell": _source("bell, handbell, church bell", "ring rings ringing, chime chimes chiming, toll tolls tolling", 3),
    "bird": _source("bird, songbird, wren", "chirp chirps chirping, tweet tweets tweeting, warble warbles warbling", 3),
    "rain": _source("rain cloud, raincloud, rain shower", "patter patters pattering, drip drips dripping", 2),
    "car": _source("car, automobile, motorcar", "rev revs revving, roar roars roaring", 2),
    "drum": _source("drum, tomtom, hand drum", "thump thumps thumping, boom booms booming, beat beats beating", 3),
    "siren": _source(
        "siren, alarm, police siren", "wail wails wailing, whoop whoops whooping, blare blares blaring", 3
    ),
    "clock": _source("clock, timepiece, wall clock", "tick ticks ticking, tock tocks tocking", 2),
    "bee": _source("bee, bumblebee, honeybee", "buzz buzzes buzzing, drone drones droning", 2),
    "dog": _source("dog, hound, mutt", "bark barks barking, woof woofs woofing", 2),
    "windmill": _source(
        "windmill, wind wheel, wind turbine",
        "whoosh whooshes whooshing, swish swishes swishing, whir whirs whirring",
        3,
    ),
    "trumpet": _source("trumpet, bugle, cornet", "toot toots tooting, blast blasts blasting", 2),
    "piano": _source("piano, pianoforte, keyboard", "plink plinks plinking, tinkle tinkles tinkling", 2),
    "guitar": _source("guitar, lute, folk guitar", "twang twangs twanging, strum strums strumming", 2),
    "frog": _source("frog, toad, tree frog", "croak croaks croaking, ribbit ribbits ribbiting", 2),
    "cat": _source("cat, tomcat, feline", "meow meows meowing, mew mews mewing", 2),
    "train": _source("train, locomotive, steam engine", "hoot hoots hooting, chuff chuffs chuffing", 2),
    "cow": _source("cow, heifer, dairy cow", "moo moos mooing, bellow bellows bellowing", 2),
    "fire": _source("fire, flame, campfire", "crackle crackles crackling, pop pops popping, snap snaps snapping", 3),
    "lightning": _source(
        "lightning bolt, thunderbolt, bolt",
        "crash crashes crashing, rumble rumbles rumbling, thunder thunders thundering",
        2,
    ),
    "phone": _source("phone, telephone, desk phone", "trill trills trilling, jangle jangles jangling", 2),
    "saw": _source("saw, handsaw, wood saw", "rasp rasps rasping, scrape scrapes scraping, grate grates grating", 2),
    "kettle": _source("kettle, teakettle, teapot", "whistle whistles whistling, boil boils boiling", 1),
    "robot": _source("robot, android, automaton", "beep beeps beeping, bleep bleeps bleeping", 2),
    "cricket": _source("cricket, grasshopper, katydid", "creak creaks creaking, chirr chirrs chirring", 2),
}

VISUAL_SIZE = {"small": ("small", "little", "tiny"), "large": ("large", "big", "huge")}
PITCH = {"small": ("high", "shrill", "treble"), "large": ("low", "deep", "bass")}
AT_PITCH = ("at a {pitch} pitch", "in a {pitch} tone", "on a {pitch} note", "with a {pitch} sound")

# Before a noun, each with the verb after "there".
NUMBER = {
    1: (("a", "is"), ("one", "is"), ("a single", "is"), ("a lone", "is")),
    2: (("two", "are"), ("a pair of", "is"), ("a couple of", "is")),
    3: (("three", "are"), ("a trio of", "is"), ("a group of three", "is")),
}
PLAIN_NUMBER = {1: ("a", "one", "a single"), 2: ("two",), 3: ("three",)}  # as the subject of a verb
WHOLE_NUMBER = {1: ("the only", "the single"), 2: ("the two", "both"), 3: ("the three", "all three")}
TIMES = {
    1: ("once", "one time", "a single time"),
    2: ("twice", "two times", "twice in a row"),
    3: ("three times", "thrice", "three times in a row"),
}

VISUAL_PLACE: dict[str, tuple[str, ...]] = {
    "field": ("on the grass", "in a field", "in a meadow", "on a lawn"),
    "shore": ("by the sea", "on the beach", "at the seaside", "beside the water"),
}
AUDIO_PLACE: dict[str, tuple[str, ...]] = {
    "field": ("in a quiet field", "in a still meadow", "with quiet all around", "where all is quiet"),
    "shore": ("while the surf rolls", "over the surf", "by the sea", "as waves break", "near rolling waves"),
}
SCENE = {
    "field": ("field", "meadow", "lawn", "grassland"),
    "shore": ("beach", "shore", "seaside", "coast"),
    "": ("scene", "view", "place", "setting"),
}
SKY = ("under a {sky} sky", "beneath a {sky} sky", "against a {sky} sky", "below a {sky} sky")
ECHO = {
    "echo": ("with an echo", "echoing", "with long reverberation", "in a long echo"),
    "dry": ("without an echo", "with no reverberation", "with a dry sound", "close to the ear"),
}
NOISE = {
    "none": ("in a clean recording", "recorded clearly", "without any noise", "recorded cleanly"),
    "hiss": ("with tape hiss", "over a hiss", "in hissing static", "behind a hiss"),
    "hum": ("with mains hum", "over a hum", "behind an electric hum", "over humming mains"),
}

# Words that do not depend on the scene.
IMAGE = ("a picture", "a drawing", "an image", "an illustration", "a sketch")
RECORDING = ("the sound", "a recording", "a clip", "an audio clip")
OBSERVER = ("we", "you", "they")

TEMPLATES: dict[str, tuple[str, ...]] = {
    "picture": (
        "{things} {place} {sky}",
        "{image} of {things} {place} {sky}",
        "{things} {sky} {place}",
        "there {be} {things} {place} {sky}",
        "{place} there {be} {things} {sky}",
        "{sky} there {be} {things} {place}",
        "a {scene} with {things} {sky}",
        "a {scene} {sky} with {things}",
        "here {be} {things} {place} {sky}",
        "{image} that shows {things} {place} {sky}",
        "{observer} see {things} {place} {sky}",
        "{all_things} {place} {sky} {are} {looks}",
    ),
    "sound": (
        "a {pitch} {noun} {verbs} {times} {place} {echo} {noise}",
        "{place} a {pitch} {noun} {verbs} {times} {echo} {noise}",
        "a {noun} {verbs} {times} {at_pitch} {place} {echo} {noise}",
        "{times} a {noun} {verbs} {at_pitch} {place} {echo} {noise}",
        "{recording} of a {pitch} {noun} {verbing} {times} {place} {echo} {noise}",
        "{few} {pitch} {calls} of a {noun} {place} {echo} {noise}",
        "{few} {pitch} {calls} from a {noun} {echo} {place} {noise}",
        "{pitch} {verbing} of a {noun} {times} {place} {echo} {noise}",
        "{observer} hear a {pitch} {noun} {verb} {times} {place} {echo} {noise}",
        "{place} {observer} hear {few} {pitch} {calls} of a {noun} {echo} {noise}",
        "listen to a {pitch} {noun} {verbing} {times} {place} {echo} {noise}",
        "a {noun} that {verbs} {times} {at_pitch} {echo} {place} {noise}",
    ),
    "mixed": (
        "{things} {verbing} {at_pitch} {place} {sky} {echo} {noise}",
        "{few_things} {agree} {at_pitch} {place} {sky} {echo} {noise}",
        "{place} {few_things} {agree} {at_pitch} {sky} {echo} {noise}",
        "{things} that {agree} {at_pitch} {place} {sky} {echo} {noise}",
        "{recording} of {things} {verbing} {at_pitch} {place} {sky} {echo} {noise}",
        "the sight and sound of {things} {verbing} {at_pitch} {place} {sky} {echo} {noise}",
        "{things} and {few} {pitch} {calls} {place} {sky} {echo} {noise}",
        "{few} {pitch} {calls} from {things} {place} {sky} {echo} {noise}",
        "{things} heard {times} {at_pitch} {place} {sky} {echo} {noise}",
        "{observer} see {things} {place} {sky} and hear {few} {pitch} {calls} {echo} {noise}",
        "{observer} hear {things} {verb} {at_pitch} {place} {sky} {echo} {noise}",
    ),
}
