# escape=`
FROM mcr.microsoft.com/windows/servercore:ltsc2022
SHELL ["powershell", "-Command"]
ENV A=c:\dir B="two words" C=x` y
RUN Write-Host a; `
    # in between
    Write-Host b
WORKDIR c:\app
