"""The languages of multilingual checkpoints, as their publishers list them."""


def _names(text: str) -> tuple[str, ...]:
    return tuple(" ".join(text.split()).split(", "))


# github.com/google-research/bert, multilingual.md: the 104 of BERT's cased model.
WIKIPEDIA_104 = _names(
    """
Afrikaans, Albanian, Arabic, Aragonese, Armenian, Asturian, Azerbaijani, Bashkir, Basque,
Bavarian, Belarusian, Bengali, Bishnupriya Manipuri, Bosnian, Breton, Bulgarian, Burmese, Catalan,
Cebuano, Chechen, Chinese (simplified), Chinese (traditional), Chuvash, Croatian, Czech, Danish,
Dutch, English, Estonian, Finnish, French, Galician, Georgian, German, Greek, Gujarati, Haitian,
Hebrew, Hindi, Hungarian, Icelandic, Ido, Indonesian, Irish, Italian, Japanese, Javanese, Kannada,
Kazakh, Kyrgyz, Korean, Latin, Latvian, Lithuanian, Lombard, Low Saxon, Luxembourgish, Macedonian,
Malagasy, Malay, Malayalam, Marathi, Minangkabau, Mongolian, Nepali, Newar, Norwegian (Bokmål),
Norwegian (Nynorsk), Occitan, Persian (Farsi), Piedmontese, Polish, Portuguese, Punjabi, Romanian,
Russian, Scots, Serbian, Serbo-Croatian, Sicilian, Slovak, Slovenian, South Azerbaijani, Spanish,
Sundanese, Swahili, Swedish, Tagalog, Tajik, Tamil, Tatar, Telugu, Thai, Turkish, Ukrainian, Urdu,
Uzbek, Vietnamese, Volapük, Waray-Waray, Welsh, West Frisian, Western Punjabi, Yoruba
"""
)

# github.com/facebookresearch/fairseq, examples/xlmr: the 100 of XLM-R, scripts counted apart.
COMMON_CRAWL_100 = _names(
    """
Afrikaans, Albanian, Amharic, Arabic, Armenian, Assamese, Azerbaijani, Basque, Belarusian,
Bengali, Bengali (romanised), Bosnian, Breton, Bulgarian, Burmese, Burmese (Zawgyi), Catalan,
Chinese (simplified), Chinese (traditional), Croatian, Czech, Danish, Dutch, English, Esperanto,
Estonian, Filipino, Finnish, French, Galician, Georgian, German, Greek, Gujarati, Hausa, Hebrew,
Hindi, Hindi (romanised), Hungarian, Icelandic, Indonesian, Irish, Italian, Japanese, Javanese,
Kannada, Kazakh, Khmer, Korean, Kurdish (Kurmanji), Kyrgyz, Lao, Latin, Latvian, Lithuanian,
Macedonian, Malagasy, Malay, Malayalam, Marathi, Mongolian, Nepali, Norwegian, Oriya, Oromo,
Pashto, Persian, Polish, Portuguese, Punjabi, Romanian, Russian, Sanskrit, Scottish Gaelic,
Serbian, Sindhi, Sinhala, Slovak, Slovenian, Somali, Spanish, Sundanese, Swahili, Swedish, Tamil,
Tamil (romanised), Telugu, Telugu (romanised), Thai, Turkish, Ukrainian, Urdu, Urdu (romanised),
Uyghur, Uzbek, Vietnamese, Welsh, West Frisian, Xhosa, Yiddish
"""
)

# github.com/facebookresearch/fairseq, examples/wav2vec: the corpora of XLSR-53 name these 52.
XLSR_53 = _names(
    """
Arabic, Assamese, Basque, Bengali, Breton, Cantonese, Cebuano, Chinese (China), Chinese (Hong
Kong), Chinese (Taiwan), Chuvash, Dhivehi, Dutch, English, Esperanto, Estonian, French, Georgian,
German, Haitian, Hakha Chin, Indonesian, Interlingua, Irish, Italian, Japanese, Kabyle, Kazakh,
Kinyarwanda, Kurdish (Kurmanji), Kyrgyz, Lao, Latvian, Mongolian, Pashto, Persian, Polish,
Portuguese, Russian, Sakha, Slovenian, Spanish, Swahili, Swedish, Tagalog, Tamil, Tatar, Tok Pisin,
Turkish, Vietnamese, Welsh, Zulu
"""
)
