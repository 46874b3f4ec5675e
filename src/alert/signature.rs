//! Signs what webhooks are sent, as Standard Webhooks 1.0 asks: HMAC-SHA256 over id, time and body.

use crate::model::Timestamp;
use crate::otlp::{read_base64, write_base64};
use ring::hmac;

/// `webhook-signature` of a message.
pub(super) fn signature(secret: &str, id: &str, now: Timestamp, body: &[u8]) -> String {
    // A secret is written `whsec_` and base64; any other text is taken as it is.
    let decoded = secret.strip_prefix("whsec_").and_then(|text| {
        let mut bytes = Vec::new();
        read_base64(text, &mut bytes).map(|()| bytes)
    });
    let key = hmac::Key::new(hmac::HMAC_SHA256, decoded.as_deref().unwrap_or(secret.as_bytes()));
    let mut context = hmac::Context::with_key(&key);
    context.update(format!("{id}.{}.", now.secs()).as_bytes());
    context.update(body);
    let mut signed = "v1,".to_owned();
    // Writing into a text does not fail.
    let _ = write_base64(context.sign().as_ref(), &mut signed);
    signed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_one_that_the_standard_gives() {
        // The example of the reference implementation.
        let (secret, id) = ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek");
        let at = Timestamp::from_secs(1_614_265_330);
        let signed = signature(secret, id, at, br#"{"test": 2432232314}"#);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }
}
