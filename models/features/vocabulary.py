"""All kinds of features, by the word that a spec's file has for each."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from models.features import arithmetic, categories, functions, moments, networks, onehot, several, texts

#: Any kind; pydantic picks it by the word.
AnyKind = Annotated[
    arithmetic.Plain
    | arithmetic.Code
    | arithmetic.Flag
    | arithmetic.Clip
    | arithmetic.Standardise
    | arithmetic.Linear
    | several.Ratio
    | several.Difference
    | several.Together
    | arithmetic.Bin
    | arithmetic.Impute
    | arithmetic.Replace
    | arithmetic.Required
    | arithmetic.IsMissing
    | several.Distance
    | functions.OfNumber
    | functions.Cycle
    | categories.Lookup
    | onehot.OneHot
    | categories.Hashed
    | categories.Cross
    | categories.Currency
    | texts.Length
    | texts.Share
    | texts.Entropy
    | texts.Matches
    | texts.Part
    | texts.Fill
    | texts.LooksRandom
    | texts.Similarity
    | moments.Local
    | moments.Part
    | moments.Calendar
    | moments.OnDates
    | moments.Elapsed
    | networks.Address
    | networks.Octet
    | networks.Prefix
    | networks.Networks,
    Field(discriminator="kind"),
]
