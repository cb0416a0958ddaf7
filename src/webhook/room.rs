//! Room for what is asked: strangers may neither use the process up nor keep the API server waiting.

use axum::{
    body::{Body, Bytes},
    http::StatusCode,
};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::{
    Limits,
    routes::{Refused, refused},
};

/// Room for bodies and for what they are once they are parsed, in KiB.
pub(super) struct Room {
    limits: Limits,
    bodies: Semaphore,
    parsed: Semaphore,
}

/// A question, and the room that it takes until it is answered.
pub(super) struct Question<'a, T> {
    pub asked: T,
    _room: Option<SemaphorePermit<'a>>,
}

impl Room {
    pub fn new(limits: Limits) -> Room {
        let of = |bytes: usize| Semaphore::new(bytes / 1024);
        Room { limits, bodies: of(limits.bodies), parsed: of(limits.parsed) }
    }

    /// A body of this length as JSON, of which at most `heaviest` bytes of memory are made.
    pub async fn read<T: DeserializeOwned>(
        &self,
        length: usize,
        body: Body,
        heaviest: usize,
    ) -> Result<Question<'_, T>, Refused> {
        let body = self.body(length, body, self.limits.body).await?;
        let room = self.parsed(weighed(&body.asked, heaviest)?).await?;
        let asked = serde_json::from_slice(&body.asked).or_else(|error| unreadable(&error))?;
        Ok(Question { asked, _room: room })
    }

    /// A body of this length, which is at most `most`, as it is.
    pub async fn body(&self, length: usize, body: Body, most: usize) -> Result<Question<'_, Bytes>, Refused> {
        let too_large = || (StatusCode::PAYLOAD_TOO_LARGE, format!("the body is larger than {most} bytes"));
        if length > most {
            return Err(too_large());
        }
        let Ok(read) = tokio::time::timeout(self.limits.time, self.collect(length, body)).await else {
            return refused(StatusCode::REQUEST_TIMEOUT, "the body did not come in time");
        };
        let (asked, room) = read.map_err(|error| match error.downcast::<LengthLimitError>() {
            Ok(_) => too_large(),
            Err(error) => (StatusCode::BAD_REQUEST, format!("the body cannot be read: {error}")),
        })?;
        Ok(Question { asked, _room: room })
    }

    /// Room for so many bytes beside the body.
    pub async fn parsed(&self, weight: usize) -> Result<Option<SemaphorePermit<'_>>, Refused> {
        // What takes more than all the room is worked on alone.
        let room = self.parsed.acquire_many(kibibytes(weight.min(self.limits.parsed)));
        match tokio::time::timeout(self.limits.time, room).await {
            Ok(room) => Ok(room.ok()),
            Err(_) => refused(StatusCode::SERVICE_UNAVAILABLE, "too much is asked at the same time; try again"),
        }
    }

    /// The first bytes are free, so that who announces much and sends nothing keeps nobody waiting.
    async fn collect(
        &self,
        length: usize,
        body: Body,
    ) -> Result<(Bytes, Option<SemaphorePermit<'_>>), Box<dyn std::error::Error + Send + Sync>> {
        let mut body = std::pin::pin!(Limited::new(body, length));
        let (mut bytes, mut held) = (Vec::new(), None);
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame?.into_data() else { continue };
            if held.is_none() && bytes.len() + data.len() > self.limits.free {
                held = self.bodies.acquire_many(kibibytes(length.min(self.limits.bodies))).await.ok();
                bytes.reserve_exact(length.saturating_sub(bytes.len()));
            }
            bytes.extend_from_slice(&data);
        }
        Ok((bytes.into(), held))
    }
}

/// How much memory JSON takes once it is parsed, if that is no more than `heaviest`.
pub(super) fn weighed(text: &[u8], heaviest: usize) -> Result<usize, Refused> {
    let weight = weight(text);
    if weight > heaviest {
        let why = format!("the review takes some {} MB in memory; at most {} do", weight >> 20, heaviest >> 20);
        return refused(StatusCode::PAYLOAD_TOO_LARGE, why);
    }
    Ok(weight)
}

/// What is said of a body that is no review.
pub(super) fn unreadable<T>(error: &serde_json::Error) -> Result<T, Refused> {
    refused(StatusCode::BAD_REQUEST, format!("the review cannot be read: {error}"))
}

fn kibibytes(bytes: usize) -> u32 {
    u32::try_from(bytes / 1024).unwrap_or(u32::MAX)
}

/// About how much memory JSON takes once it is parsed: a map takes several hundred bytes, however little is in it.
fn weight(text: &[u8]) -> usize {
    const MAP: usize = 660;
    const LIST: usize = 160;
    const ITEM: usize = 96;
    let (mut weight, mut is_text, mut is_escaped) = (text.len(), false, false);
    for (i, byte) in text.iter().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_text => is_escaped = true,
            b'"' => is_text = !is_text,
            _ if is_text => {}
            // An empty one takes nothing.
            b'{' if text.get(i + 1) != Some(&b'}') => weight += MAP,
            b'[' => weight += LIST,
            b',' => weight += ITEM,
            _ => {}
        }
    }
    weight
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_texts_weighs_nothing_more() {
        assert_eq!(weight(br#""{[,\"{[,""#), 10);
        assert_eq!(weight(b"{}"), 2);
        assert_eq!(weight(br#"{"a":1,"b":[{}]}"#), 16 + 660 + 96 + 160);
        // The heaviest that can be said in few words.
        assert!(weight("[],".repeat(1000).as_bytes()) > 250_000);
        assert!(weight(r#"{"":0},"#.repeat(1000).as_bytes()) > 750_000);
    }
}
