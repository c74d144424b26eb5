//! One DNS question and the check of its answer (RFC 1035, section 4).

/// Codes of a refused question (RFC 1035, section 4.1.1).
const REFUSALS: [(u8, &str); 4] = [
    (1, "it calls the question malformed"),
    (2, "it cannot resolve names (SERVFAIL)"),
    (4, "it does not implement questions"),
    (5, "it refuses this host (REFUSED)"),
];

/// Returns the question for the IPv4 addresses of a name.
pub(super) fn query(id: u16, name: &str) -> Vec<u8> {
    let mut bytes = id.to_be_bytes().to_vec();
    // Recursion desired, one question, nothing else.
    bytes.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).unwrap_or(u8::MAX));
        bytes.extend(label.as_bytes());
    }
    // The root, type A, class IN.
    bytes.extend([0, 0, 1, 0, 1]);
    bytes
}

/// Accepts an answer to the question with this id. A name that does not exist is an answer.
pub(super) fn check(id: u16, answer: &[u8]) -> Result<(), String> {
    let &[high, low, flags, code, ..] = answer else {
        return Err("the answer is cut".to_owned());
    };
    if answer.len() < 12 || [high, low] != id.to_be_bytes() || flags & 0x80 == 0 {
        return Err("the answer is not DNS".to_owned());
    }
    let code = code & 0x0f;
    match REFUSALS.iter().find(|(refusal, _)| *refusal == code) {
        Some((_, reason)) => Err((*reason).to_owned()),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_as_rfc_1035_says() {
        let wanted = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x06github\x03com\0\0\x01\0\x01";
        assert_eq!(query(0x1234, "github.com"), wanted);
    }

    #[test]
    fn an_answer_belongs_to_its_question_and_a_refusal_says_why() {
        let mut answer = query(7, "github.com");
        assert!(check(7, &answer).is_err(), "a question is not an answer");
        answer[2] |= 0x80;
        assert_eq!(check(7, &answer), Ok(()));
        assert!(check(8, &answer).is_err());
        answer[3] = 3;
        assert_eq!(check(7, &answer), Ok(()), "NXDOMAIN is an answer");
        answer[3] = 5;
        assert!(check(7, &answer).unwrap_err().contains("REFUSED"));
        assert!(check(7, &answer[..3]).is_err());
        assert!(check(7, &answer[..11]).is_err());
    }
}
