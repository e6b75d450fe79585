"""What the forms of lines promise of themselves."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from breachwatch.parse.rawform import FORMS, SETTLED

SIGNS = sorted({sign for form in (*FORMS.values(), *SETTLED.values()) for sign in form.dirty if sign.needs})


@pytest.mark.parametrize("sign", SIGNS, ids=lambda sign: sign.regex)
@given(data=st.data())
def test_whatever_holds_a_sign_holds_what_it_needs(sign, data):
    line = data.draw(st.from_regex(re.compile(sign.regex.encode(), re.IGNORECASE)))
    assert any(one in line for one in sign.needs)
