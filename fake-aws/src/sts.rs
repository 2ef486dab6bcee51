//! The security token service (STS), as far as it says who the caller is. Its requests are forms, and its answers XML.

use hyper::header::{CONTENT_TYPE, HeaderMap};

/// The operation in the request log.
pub(crate) const GET_CALLER_IDENTITY: &str = "sts:GetCallerIdentity";

/// Returns the operation of a request; `None` if it is not for STS.
pub(crate) fn operation(headers: &HeaderMap, body: &[u8]) -> Option<&'static str> {
    let is_form = headers.get(CONTENT_TYPE).is_some_and(|value| value == "application/x-www-form-urlencoded");
    let asks = body.split(|byte| *byte == b'&').any(|field| field == b"Action=GetCallerIdentity");
    (is_form && asks).then_some(GET_CALLER_IDENTITY)
}

/// Returns the answer to `GetCallerIdentity`, which no policy can deny.
pub(crate) fn caller(principal: &str, account: &str) -> String {
    format!(
        "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><GetCallerIdentityResult>\
         <Arn>{principal}</Arn><UserId>AROAFAKEFAKEFAKEFAKE0:session</UserId><Account>{account}</Account>\
         </GetCallerIdentityResult></GetCallerIdentityResponse>"
    )
}

/// Returns the body of an error.
pub(crate) fn error(code: &str, message: &str) -> String {
    format!(
        "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type>\
         <Code>{code}</Code><Message>{message}</Message></Error></ErrorResponse>"
    )
}
