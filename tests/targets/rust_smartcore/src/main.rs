//! Scales rows and predicts with smartcore, a batch of requests for each line on standard input.

use std::error::Error;
use std::io::{BufRead, Write};

use smartcore::api::{Transformer, UnsupervisedEstimator};
use smartcore::ensemble::random_forest_classifier::{RandomForestClassifier, RandomForestClassifierParameters};
use smartcore::linalg::basic::matrix::DenseMatrix;
use smartcore::linear::logistic_regression::LogisticRegression;
use smartcore::preprocessing::numerical::{StandardScaler, StandardScalerParameters};

const COLUMNS: usize = 4;

fn rows(count: usize, mut state: u64) -> Result<DenseMatrix<f64>, Box<dyn Error>> {
    let mut number = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f64 / f64::from(1 << 23) - 1.0
    };
    let rows: Vec<Vec<f64>> = (0..count).map(|_| (0..COLUMNS).map(|_| number()).collect()).collect();
    Ok(DenseMatrix::from_2d_vec(&rows)?)
}

fn main() -> Result<(), Box<dyn Error>> {
    let requests: u64 = std::env::args().nth(1).map_or(Ok(20), |text| text.parse())?;
    let training = rows(120, 1)?;
    let labels: Vec<i32> = (0..120).map(|row| i32::from(row % 3 == 0)).collect();
    let scaler = StandardScaler::fit(&training, StandardScalerParameters::default())?;
    let scaled = scaler.transform(&training)?;
    let classifier = LogisticRegression::fit(&scaled, &labels, Default::default())?;
    let parameters = RandomForestClassifierParameters::default().with_n_trees(5).with_seed(9);
    let forest = RandomForestClassifier::fit(&scaled, &labels, parameters)?;

    let mut checksum: i64 = 0;
    let mut output = std::io::stdout().lock();
    writeln!(output, "ready")?;
    output.flush()?;
    for line in std::io::stdin().lock().lines() {
        line?;
        for request in 0..requests {
            let scaled = scaler.transform(&rows(10, request + 2)?)?;
            let classes = classifier.predict(&scaled)?;
            let votes = forest.predict(&scaled)?;
            for (index, (class, vote)) in classes.iter().zip(&votes).enumerate() {
                checksum += (index as i64 + 1) * i64::from(class * 2 + vote);
            }
        }
        writeln!(output, "checksum {checksum}\nready")?;
        output.flush()?;
    }
    Ok(())
}
