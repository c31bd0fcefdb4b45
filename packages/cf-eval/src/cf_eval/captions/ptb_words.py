"""The words the Penn Treebank tokenizer knows: abbreviations that keep their dot, words that begin a sentence."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Keep their dot in any case of letters. "inc.x" is "inc." and "x".
ABBREVIATIONS = _words("""
    al ala apr assn aug bancorp bhd bldg blvd bros calif co colo conn corp cos ct dak dec esq est etc ext feb
    fla fri ga inc ind intl jan jr jul jun kan kans ky ltd mar md mich minn mo mon mont neb nev nov oct okla
    penn plc ppte ppty pte ptes pty ptys rd rt sep sept seq sq sr sys tel tenn thu thurs tue tues univ va vt wed
    wis wisc wyo
    """)

# Titles and the like keep theirs too. "st.louis" is one word.
TITLES = _words("""
    adj adm adv alex assoc asst atty attys ave brig capt cf cie cmdr col comdr cpl dept det dr drs elec ens ft
    gen gov govs hon insp invt jos lieut lt maj messrs mfg mlle mme mr mrs ms msgr mt mtg natl pfc pres prof
    profs pvt rep reps rev sen sens sfc sgt spc st ste supt supts vs wm
    """)

# Among both, these are not abbreviations when all letters are capitals.
NEVER_CAPITALS = _words("mfg mtg ppte ppty pte ptes pty ptys")

# Words of their own in lower case, abbreviations with a capital: "Miss. river", but "they miss. then".
CAPITALISED_ABBREVIATIONS = _words("az ark del ill la mass miss ore pa tex wash")

# Keep their dot before a number: "no. 5".
NUMBERED = _words("art ca fig figs no nos op pp prop")

# Before one of these words a single letter and a dot end a sentence: "vitamin C. The" is c, not c. (case matters).
SENTENCE_OPENERS = _words("""
    A About According Additionally After An As At But Earlier He Her Here However If In It Last Many More Mr. Ms. Now
    Once One Other Our She Since So Some Such That The Their Then There These They This We What When While Yet You
    """)

FILE_ENDINGS = _words("""
    bat bmp c class cgi cpp dll doc docx exe gif gz h htm html jar java jpeg jpg mov mp3 pdf php pl png ppt ps py sql
    tar txt wav x xml zip wm wma wmv
    """)

# Two tokens each.
SPLIT_WORDS = _words("cannot gonna gotta lemme gimme wanna")

# Punctuation that COCO's caption evaluation does not count; upper case, so that -lrb- stays.
DROPPED = _words("'' ' `` ` -LRB- -RRB- -LCB- -RCB- . ? ! , : - -- ... ;")
