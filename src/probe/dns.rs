//! One question to a name server over UDP (RFC 1035): has this name an address?

/// A question for `A` records.
pub(super) fn question(id: u16, name: &str) -> Vec<u8> {
    let mut message = Vec::with_capacity(name.len() + 18);
    message.extend(id.to_be_bytes());
    // Recursion desired; one question.
    message.extend([0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        message.push(u8::try_from(label.len()).unwrap_or(63));
        message.extend(label.bytes().take(63));
    }
    message.extend([0, 0, 1, 0, 1]);
    message
}

/// What an answer says.
///
/// # Errors
/// Why the name has no address, in words.
pub(super) fn answer(id: u16, message: &[u8]) -> Result<(), String> {
    let Some(&[id_high, id_low, flags, code, _, _, count_high, count_low, _, _, _, _]) =
        message.first_chunk()
    else {
        return Err("the answer is too short".to_owned());
    };
    if u16::from_be_bytes([id_high, id_low]) != id || flags & 0x80 == 0 {
        return Err("what came is no answer to the question".to_owned());
    }
    match (code & 0x0f, u16::from_be_bytes([count_high, count_low])) {
        (0, 0) => Err("the name has no address".to_owned()),
        (0, _) => Ok(()),
        (1, _) => Err("the server says FORMERR".to_owned()),
        (2, _) => Err("the server says SERVFAIL".to_owned()),
        (3, _) => Err("the server says NXDOMAIN".to_owned()),
        (5, _) => Err("the server says REFUSED".to_owned()),
        (other, _) => Err(format!("the server says RCODE {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_as_the_standard_has_it_and_answers_are_read() {
        let asked = question(7, "a.example");
        assert_eq!(&asked[12..], b"\x01a\x07example\x00\x00\x01\x00\x01");
        let said = |code: u8, answers: u8| [0, 7, 0x81, 0x80 | code, 0, 1, 0, answers, 0, 0, 0, 0];
        assert_eq!(answer(7, &said(0, 1)), Ok(()));
        assert!(answer(7, &said(3, 0)).unwrap_err().contains("NXDOMAIN"));
        assert!(answer(7, &said(0, 0)).unwrap_err().contains("no address"));
        assert!(answer(8, &said(0, 1)).is_err());
        assert!(answer(7, &asked).is_err(), "a question is no answer");
        assert!(answer(7, &[0; 11]).is_err());
    }
}
