//! What is damaged may have been damaged on its way: it is read again before that is believed.

use std::time::Duration;

use bytes::Bytes;

/// How often what is damaged is read before that is believed: what a pack needs is dropped by a collector that cannot
/// read it.
const ATTEMPTS: u32 = 4;

/// How long it is waited before the last attempt: what damages one on its way may damage the next.
const BEFORE_THE_LAST: Duration = Duration::from_millis(60);

/// Tries until what was read is whole, some times.
///
/// # Errors
/// When it could not be read. What is wrong with what was read, which is believed now, is an answer.
pub(crate) async fn attempts<T, Damage, Error, Attempt>(
    mut attempt: impl FnMut() -> Attempt,
) -> Result<Result<T, Damage>, Error>
where
    Attempt: Future<Output = Result<Result<T, Damage>, Error>>,
{
    let mut tried = 1;
    loop {
        let read = attempt().await?;
        if read.is_ok() || tried == ATTEMPTS {
            return Ok(read);
        }
        tried += 1;
        if tried == ATTEMPTS {
            tokio::time::sleep(BEFORE_THE_LAST).await;
        }
    }
}

/// The same for what is opened of bytes that may be here already: what is not whole of these is read, too.
///
/// # Errors
/// As [`attempts`].
pub(crate) async fn attempts_at<T, Damage, Error, Read, Open>(
    mut here: Option<Bytes>,
    read: impl Fn() -> Read,
    open: impl Fn(Bytes) -> Open,
) -> Result<Result<T, Damage>, Error>
where
    Read: Future<Output = Result<Bytes, Error>>,
    Open: Future<Output = Result<Result<T, Damage>, Error>>,
{
    let attempt = || {
        let here = here.take();
        async {
            let bytes = match here {
                Some(bytes) => bytes,
                None => read().await?,
            };
            open(bytes).await
        }
    };
    attempts(attempt).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_damaged_is_read_again_and_what_cannot_be_read_is_not() {
        let begun = tokio::time::Instant::now();
        let try_them = async |reads: &[Result<Result<(), &'static str>, ()>]| {
            let mut tried = 0;
            let read = attempts(|| {
                tried += 1;
                std::future::ready(reads[tried - 1])
            });
            let read = read.await;
            (read, tried)
        };
        let (whole, damaged, away) = (Ok(Ok(())), Ok(Err("damaged")), Err(()));
        assert_eq!(try_them(&[whole]).await, (whole, 1));
        assert_eq!(try_them(&[damaged, whole]).await, (whole, 2));
        assert_eq!(try_them(&[damaged, damaged, away]).await, (away, 3));
        assert_eq!(begun.elapsed(), Duration::ZERO);
        assert_eq!(try_them(&[damaged; 4]).await, (damaged, 4));
        assert_eq!(begun.elapsed(), BEFORE_THE_LAST);
    }
}
